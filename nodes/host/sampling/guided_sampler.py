"""GradPaint on a SAMPLER: the same wrapper as on a MODEL, around the sampler that is given.

It works with whatever guider the run has. By the time a sampler is called the host has loaded the models, so what a
patched MODEL arranges for before that is arranged for late.
"""

from __future__ import annotations

import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
from torch import Tensor

from ....gradpaint.method.settings import GuidanceSettings, MemorySettings
from ..memory.device_memory import with_room
from .wrapper import KEY, GradPaintWrapper, without_graph_replay


def wrap_sampler(
    sampler, settings: GuidanceSettings, on_record=None, memory: MemorySettings | None = None, keep: bool = False
) -> GuidedSampler:
    """A SAMPLER whose masked runs are GradPaint runs of the host's SAMPLER `sampler`, which is not changed.

    The arguments are those of `apply_gradpaint`. A sampler that is wrapped already is wrapped anew: the later settings
    hold.
    """
    inner = sampler.inner if isinstance(sampler, GuidedSampler) else sampler
    return GuidedSampler(inner, _SamplerWrapper(settings, on_record, memory, keep=keep))


class GuidedSampler(comfy.samplers.Sampler):
    """inner: the sampler that makes the steps; wrapper: what guides it."""

    acts_for_gradpaint = True  # see GradPaintWrapper

    def __init__(self, inner, wrapper: GradPaintWrapper):
        self.inner, self.wrapper = inner, wrapper

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ) -> Tensor:
        """As the host calls it, with the guider as model_wrap."""
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self.inner.sample, self.inner, [self.wrapper]
        )
        return without_graph_replay(
            executor.execute, model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
        )

    def max_denoise(self, model_wrap, sigmas) -> bool:
        return self.inner.max_denoise(model_wrap, sigmas)

    @property
    def extra_options(self) -> dict:
        return self.inner.extra_options

    @property
    def inpaint_options(self) -> dict:
        return self.inner.inpaint_options

    @property
    def sampler_function(self):
        """Samplers that wrap others call this one, past our `sample`: they would lose GradPaint without a word."""
        raise AttributeError(
            "GradPaint Sampler must be the last one before the sampling node: put the node that wraps "
            "a sampler before it"
        )


class _SamplerWrapper(GradPaintWrapper):
    def _prepare(self, guider, settings: GuidanceSettings, noise: Tensor) -> None:
        if self.differentiates:
            load_again(guider, noise.shape, getattr(settings.alignment, "patchers", []))


def load_again(guider, noise_shape, decoders: list) -> None:
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
    _, _, guider.loaded_models = with_room(
        comfy.sampler_helpers.prepare_sampling, patcher, noise_shape, conds, model_options=options
    )
