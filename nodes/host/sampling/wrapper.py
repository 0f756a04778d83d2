"""GradPaint as a set of wrappers on a cloned MODEL: the one mechanism behind every node.

The work is done by a `sampler_sample` wrapper. At each run it takes the mask out of the host's hands, prepares the
model for differentiation, adds a `predict_noise` wrapper to that run's own options, and undoes it all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import comfy.patcher_extension
import torch
from torch import Tensor

from ....gradpaint.method.settings import GuidanceSettings, MemorySettings
from ....gradpaint.sampling.inpaint_method import InpaintMethod
from ..autograd.compiled import guided_only
from ..latents.decoders import decoder_for
from ..latents.mask_check import is_empty, is_full
from ..memory.device_memory import leave_room
from ..memory.ladder import MemoryLadder
from ..report.record import LiveRecord, RunRecord
from . import run_setup
from .entry_point import EntryPoint
from .run import GuidedRun
from .run_setup import RunSetup, SamplerCallback
from .stretches import is_straight, sample_stretches

log = logging.getLogger(__name__)

KEY = "gradpaint"
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
PREPARE_SAMPLING = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
SAMPLER_SAMPLE = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
PREDICT_NOISE = comfy.patcher_extension.WrappersMP.PREDICT_NOISE

OnRecord = Callable[[RunRecord], None]


def apply_gradpaint(
    model: Any,
    settings: GuidanceSettings,
    on_record: OnRecord | None = None,
    memory: MemorySettings | None = None,
    mask: Tensor | None = None,
    keep: bool = False,
) -> Any:
    """A clone of the host's ModelPatcher `model` on which every masked sampling run is a GradPaint run.

    The mask is the latent's noise mask, as the host hands it over (1 = repaint). A run without one is a plain run.
    `model` itself is not changed.

    Args:
        model: The host's ModelPatcher.
        settings: GradPaint's.
        on_record: Called with the RunRecord at the end of each run.
        memory: How guided steps use memory.
        mask: The same noise mask before the host fits it to the latent's size, for a loss on decoded images.
        keep: The records hold what pictures of the run need (see `picture_keeper`).
    """
    return with_wrapper(model, GradPaintWrapper(InpaintMethod(settings), None, on_record, memory, mask, keep))


def with_wrapper(model: Any, wrapper: GradPaintWrapper) -> Any:
    """A clone of the host's ModelPatcher `model` whose masked sampling runs are the wrapper's."""
    clone = model.clone()
    wrappers = {
        SAMPLER_SAMPLE: wrapper,
        OUTER_SAMPLE: run_setup.without_graph_replay,
        PREPARE_SAMPLING: leave_room if wrapper.differentiates else None,
    }
    for kind, function in wrappers.items():
        clone.remove_wrappers_with_key(kind, KEY)  # applied twice: the later settings hold
        if function is not None:
            clone.add_wrapper_with_key(kind, KEY, function)
    clone.remove_additional_models(KEY)
    if wrapper.decoders:
        clone.set_additional_models(KEY, wrapper.decoders)  # loaded along with the model, for each run
    return clone


class SamplerCall(NamedTuple):
    """A call of the host's `sampler_sample`: the executor and the arguments that it takes, in its order."""

    executor: Any
    guider: Any
    sigmas: Tensor
    extra_args: dict
    callback: SamplerCallback | None
    noise: Tensor
    latent: Tensor
    mask: Tensor
    disable_pbar: bool


class GradPaintWrapper:
    """The `sampler_sample` wrapper. Holds settings only; what belongs to a run lives in its GuidedRun.

    Args:
        method: What the runs do with the known region and the loss.
        entry: What happens around them; a patched MODEL's by default.
        on_record, memory, mask, keep: See `apply_gradpaint`.
    """

    def __init__(
        self,
        method: InpaintMethod,
        entry: EntryPoint | None = None,
        on_record: OnRecord | None = None,
        memory: MemorySettings | None = None,
        mask: Tensor | None = None,
        keep: bool = False,
    ) -> None:
        self.method, self.entry = method, entry or EntryPoint()
        self.on_record, self.memory = on_record, memory or MemorySettings()
        self.mask, self.keep = mask, keep

    @property
    def differentiates(self) -> bool:
        """Whether runs take gradients through the model."""
        settings = self.method.settings
        return settings is not None and settings.gradient != "x0" and self.entry.may_guide(settings)

    @property
    def decoders(self) -> list:
        """The host's ModelPatchers that have to be loaded along with the model."""
        settings = self.method.settings
        return getattr(settings.alignment, "patchers", []) if settings is not None and self.differentiates else []

    def __call__(
        self,
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: SamplerCallback | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """As the host calls it."""
        if isinstance(self.on_record, LiveRecord):
            self.on_record.clear()
        reason = reason_for_plain_sampling(executor.class_obj, sigmas, denoise_mask)
        if reason is not None:
            log.log(reason.level, "GradPaint: %s", reason.text)
        if reason is not None or latent_image is None or denoise_mask is None:
            return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
        call = SamplerCall(
            executor, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
        )
        path = self.method.path(len(sigmas) - 1)
        if is_straight(path):
            return self.sample(call, self.entry)
        samples, record = sample_stretches(path, call, self.sample)
        if self.on_record is not None:
            self.on_record(record)
        return samples

    def sample(self, call: SamplerCall, entry: EntryPoint) -> Tensor:
        """A run down the noise levels, with something to repaint and something to keep."""
        setup = self._setup(call, entry)
        run = GuidedRun(setup)
        entry.announce(run)
        latent = call.latent
        if bool(call.noise.any()) and call.executor.class_obj.max_denoise(call.guider, call.sigmas):
            # The host adds the latent to its first noise even at denoise 1; what is under the hole must not leak.
            latent = latent * (1 - call.mask)
        with contextlib.ExitStack() as for_this_run:
            for_this_run.enter_context(_predict_noise_wrapper(call.guider, run))
            for_this_run.enter_context(_one_noise_level(call.guider))
            groups = run_setup.weight_groups(call.guider)
            modules, model = list(setup.modules), lambda: setup.differentiable_model(groups)
            for_this_run.enter_context(guided_only(call.guider, modules, model, run.differentiator))
            sigmas = call.sigmas.clone()  # UniPC writes into its sigmas: on the CPU those of the caller
            # No mask: the host would keep the known region its own way.
            arguments = call.guider, sigmas, call.extra_args, run.callback, call.noise, latent, None, call.disable_pbar
            samples = call.executor(*arguments)
        samples = run.finish(samples)
        entry.finished(run, samples)
        if self.on_record is not None and entry is self.entry:
            self.on_record(run.record)
        return samples

    def _setup(self, call: SamplerCall, entry: EntryPoint) -> RunSetup:
        guider, sampler, seed = call.guider, call.executor.class_obj, call.extra_args.get("seed")
        model = guider.inner_model
        run_setup.check_latent(model, call.latent, call.noise)
        settings = run_setup.settings_for(self.method.settings, model)
        entry.prepare(guider, settings, call.noise)
        segment, handover = entry.resume(call.latent, call.sigmas, bool(call.noise.any()))
        known = entry.known(call.latent, handover)
        call_map = entry.call_map(sampler, guider, call.sigmas, call.noise, seed)
        if self.method.replaces_state and (call_map is None or not call_map.in_place):
            raise ValueError(_out_of_reach(self.method.name, sampler))
        setup = RunSetup(
            guider,
            self.method,
            settings,
            known,
            call.mask,
            call.sigmas,
            segment,
            call_map,
            MemoryLadder(self.memory, model, call.latent.device),
            resume=None if handover is None else handover.progress,
            keep_pictures=self.keep,
            seed=seed,
            callback=call.callback,
        )
        if not setup.takes_gradient:
            return setup
        return dataclasses.replace(
            setup,
            modules=run_setup.differentiated_modules(guider),
            decode=decoder_for(model, settings.alignment, known),
            fine_mask=self._fine_mask(call.latent),
        )

    def _fine_mask(self, latent: Tensor) -> Tensor | None:
        """The user's mask if it is one of pictures, on the latent's device."""
        mask = self.mask
        return None if mask is None or mask.is_nested or mask.ndim > 4 else mask.to(latent.device, torch.float32)


@contextlib.contextmanager
def _predict_noise_wrapper(guider: Any, run: GuidedRun) -> Iterator[None]:
    wrappers = guider.model_options.setdefault("transformer_options", {}).setdefault("wrappers", {})
    theirs = wrappers.get(PREDICT_NOISE, {})
    wrappers[PREDICT_NOISE] = {KEY: [run.predict_noise], **theirs}  # outermost: once per call of the sampler
    try:
        yield
    finally:
        wrappers[PREDICT_NOISE] = theirs


@contextlib.contextmanager
def _one_noise_level(guider: Any) -> Iterator[None]:
    conds = guider.conds
    guider.conds = run_setup.with_one_noise_level(conds)
    try:
        yield
    finally:
        guider.conds = conds


class Reason(NamedTuple):
    """Why a run is a plain one, for the log."""

    level: int
    text: str


def reason_for_plain_sampling(sampler: Any, sigmas: Tensor, mask: Tensor | None) -> Reason | None:
    """Why there is nothing for GradPaint to do in a run; None where there is."""
    if getattr(sampler, "acts_for_gradpaint", False):
        return Reason(
            logging.INFO, "both the model and the sampler have GradPaint on them: the GradPaint Sampler's settings hold"
        )
    if mask is None:
        return Reason(
            logging.WARNING,
            "the latent has no noise mask, so there is nothing to inpaint: plain sampling. "
            "Connect a mask, or use Set Latent Noise Mask before the sampler.",
        )
    if is_full(mask):
        return Reason(
            logging.WARNING,
            "the noise mask is 1 everywhere, so there is nothing to keep: plain sampling. If it is "
            "inverted, put Invert Mask before it.",
        )
    if is_empty(mask):
        return Reason(
            logging.WARNING,
            "the noise mask is 0 everywhere, so there is nothing to repaint: plain sampling. Paint the hole white.",
        )
    if float(sigmas[-1]) > float(sigmas[0]):
        return Reason(
            logging.INFO, "the noise grows over this run (Flip Sigmas), so there is nothing to guide: plain sampling"
        )
    return None


def _out_of_reach(method: str, sampler: Any) -> str:
    name = getattr(getattr(sampler, "sampler_function", sampler), "__name__", type(sampler).__name__)
    return (
        f"{method} replaces the known part of the sampler's state, which can't be reached in "
        f"{name.removeprefix('sample_')}; use another sampler, e.g. euler, ddpm or dpmpp_2m, or another method"
    )
