"""GradPaint on a SAMPLER: the same wrapper as on a MODEL, around the sampler that is given.

It works with whatever guider the run has. By the time a sampler is called the host has loaded the models, so what a
patched MODEL arranges for before that is arranged for late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
from torch import Tensor

from ....gradpaint.method.settings import GuidanceSettings, MemorySettings
from ....gradpaint.sampling.inpaint_method import InpaintMethod
from ..memory.device_memory import leave_room
from .entry_point import EntryPoint
from .run_setup import SamplerCallback, without_graph_replay
from .wrapper import KEY, GradPaintWrapper, OnRecord


def wrap_sampler(
    sampler: Any,
    settings: GuidanceSettings,
    on_record: OnRecord | None = None,
    memory: MemorySettings | None = None,
    keep: bool = False,
) -> GuidedSampler:
    """A SAMPLER whose masked runs are GradPaint runs of the host's SAMPLER `sampler`, which is not changed.

    A sampler that is wrapped already is wrapped anew: the later settings hold.

    Args:
        sampler: The host's SAMPLER, or one of these.
        settings, on_record, memory, keep: See `apply_gradpaint`.
    """
    inner = sampler.inner if isinstance(sampler, GuidedSampler) else sampler
    wrapper = GradPaintWrapper(InpaintMethod(settings), SamplerEntryPoint(), on_record, memory, keep=keep)
    return GuidedSampler(inner, wrapper)


class GuidedSampler(comfy.samplers.Sampler):
    """The SAMPLER.

    Args:
        inner: The sampler that makes the steps.
        wrapper: What guides it.
    """

    acts_for_gradpaint = True  # see wrapper.reason_for_plain_sampling

    def __init__(self, inner: Any, wrapper: GradPaintWrapper) -> None:
        self.inner, self.wrapper = inner, wrapper

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: SamplerCallback | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """As the host calls it, with the guider as model_wrap."""
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self.inner.sample, self.inner, [self.wrapper]
        )
        return without_graph_replay(
            executor.execute, model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
        )

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        return self.inner.max_denoise(model_wrap, sigmas)

    @property
    def extra_options(self) -> dict:
        return self.inner.extra_options

    @property
    def inpaint_options(self) -> dict:
        return self.inner.inpaint_options

    @property
    def sampler_function(self) -> Callable:
        """Samplers that wrap others call this one, past our `sample`: they would lose GradPaint without a word."""
        raise AttributeError(
            "GradPaint Sampler must be the last one before the sampling node: put the node that wraps "
            "a sampler before it"
        )


class SamplerEntryPoint(EntryPoint):
    """Runs of a wrapped SAMPLER."""

    def prepare(self, guider: Any, settings: GuidanceSettings, noise: Tensor) -> None:
        if settings.gradient != "x0" and self.may_guide(settings):
            load_again(guider, list(noise.shape), getattr(settings.alignment, "patchers", []))


def load_again(guider: Any, noise_shape: list[int], decoders: list) -> None:
    """Load a run's models once more, the decoders with them, with the room that guided steps need."""
    patcher = guider.model_patcher
    # Other models of the guider's own (DualModelGuider) must not be unloaded for it.
    others = [
        value
        for value in vars(guider).values()
        if hasattr(value, "model_patches_models") and value is not patcher and not patcher.is_clone(value)
    ]
    conds = {**guider.conds, KEY: [{"additional_models": [*others, *decoders]}]}
    options = {key: value for key, value in guider.model_options.items() if key == "registered_hooks"}
    _, _, guider.loaded_models = leave_room(
        comfy.sampler_helpers.prepare_sampling, patcher, noise_shape, conds, model_options=options
    )
