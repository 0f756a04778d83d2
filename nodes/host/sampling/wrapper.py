"""GradPaint as a set of wrappers on a cloned MODEL: the one mechanism behind every node.

The work is done by a `sampler_sample` wrapper. At each run it takes the mask out of the host's hands, prepares the
model for differentiation, adds a `predict_noise` wrapper to that run's own options, and undoes it all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging

import comfy.cli_args
import comfy.patcher_extension
import torch

from ....gradpaint.method.plan import guided_steps
from ....gradpaint.method.settings import GuidanceSettings, MemorySettings
from ..autograd.bridge import differentiable
from ..autograd.compiled import check_engine, guided_only
from ..autograd.weight_hooks import WeightGroups
from ..latents.decoders import alignment_on, decoder_for
from ..latents.mask_check import is_empty, is_full
from ..memory.device_memory import with_room
from ..memory.ladder import MemoryLadder
from ..report.estimate import estimate, learn
from ..report.picture_keeper import Keeper
from ..report.record import LiveRecord
from . import unfinished
from .part_run import Part, PartRun
from .probe import probe_sampler
from .run import GuidedRun
from .unfinished import Before

log = logging.getLogger(__name__)

KEY = "gradpaint"
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
PREPARE_SAMPLING = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
SAMPLER_SAMPLE = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
PREDICT_NOISE = comfy.patcher_extension.WrappersMP.PREDICT_NOISE


def apply_gradpaint(
    model,
    settings: GuidanceSettings,
    on_record=None,
    memory: MemorySettings | None = None,
    mask: torch.Tensor | None = None,
    keep: bool = False,
):
    """A clone of the host's ModelPatcher `model` on which every masked sampling run is a GradPaint run.

    The mask is the latent's noise mask, as the host hands it over (1 = repaint). A run without one is a plain run.
    on_record: called with the RunRecord at the end of each run; memory: how guided steps use memory; mask: the same
    noise mask before the host fits it to the latent's size, for a loss on decoded images; keep: the records hold what
    pictures of the run need (see `keep`). `model` itself is not changed.
    """
    return with_wrapper(model, GradPaintWrapper(settings, on_record, memory, mask, keep))


def with_wrapper(model, wrapper: GradPaintWrapper):
    """A clone of the host's ModelPatcher `model` whose masked sampling runs are the wrapper's."""
    clone = model.clone()
    wrappers = {
        SAMPLER_SAMPLE: wrapper,
        OUTER_SAMPLE: without_graph_replay,
        PREPARE_SAMPLING: with_room if wrapper.differentiates else None,
    }
    for kind, function in wrappers.items():
        clone.remove_wrappers_with_key(kind, KEY)  # applied twice: the later settings hold
        if function is not None:
            clone.add_wrapper_with_key(kind, KEY, function)
    clone.remove_additional_models(KEY)
    decoders = getattr(wrapper.settings.alignment, "patchers", []) if wrapper.differentiates else []
    if decoders:
        clone.set_additional_models(KEY, decoders)  # loaded along with the model, for each run
    return clone


class GradPaintWrapper:
    """The `sampler_sample` wrapper. Holds settings only; what belongs to a run lives in its GuidedRun."""

    def __init__(
        self,
        settings: GuidanceSettings,
        on_record=None,
        memory: MemorySettings | None = None,
        mask: torch.Tensor | None = None,
        keep: bool = False,
    ):
        self.settings, self.on_record, self.memory = settings, on_record, memory or MemorySettings()
        self.mask, self.keep = mask, keep

    @property
    def differentiates(self) -> bool:
        """Whether runs take gradients through the model."""
        settings = self.settings
        return settings.active and settings.gradient != "x0" and any(guided_steps(settings.schedule, 1))

    def __call__(
        self,
        executor,
        guider,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
    ):
        if isinstance(self.on_record, LiveRecord):
            self.on_record.clear()
        alone = _leave_alone(executor.class_obj, sigmas, denoise_mask)
        run = executor if alone else functools.partial(self._sample, executor)
        return run(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)

    def _sample(self, executor, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar):
        """A run with something to repaint and something to keep."""
        model = guider.inner_model
        _check_latent(model, latent_image, noise)
        settings = _for_model(self.settings, model)
        self._prepare(guider, settings, noise)
        sampler, adds_noise = executor.class_obj, bool(noise.any())
        before = None if adds_noise else self._before(latent_image, sigmas)
        known = latent_image if before is None else before.handover.known.to(latent_image)
        plan = self._plan(sampler, guider, sigmas, noise, extra_args.get("seed"))
        ladder = MemoryLadder(self.memory, model, latent_image.device)
        run = self._new_run(
            extra_args.get("seed"), before, guider, settings, known, denoise_mask, sigmas, plan, callback, ladder
        )
        run.keeper = Keeper(run.guided, guider) if self.keep else None
        if run.needs_model_gradient:
            run.differentiator.decode = decoder_for(model, settings.alignment, known)
            run.differentiator.fine_mask = _fine(self.mask, latent_image)
        modules = _differentiated_modules(guider) if run.needs_model_gradient else []
        _check_supported(guider, modules)
        expected = estimate(run)
        if expected is not None:
            log.info("GradPaint: %s", expected)
        if adds_noise and sampler.max_denoise(guider, sigmas):
            # The host adds the latent to its first noise even at denoise 1; what is under the hole must not leak.
            latent_image = latent_image * (1 - denoise_mask)
        wrappers = guider.model_options.setdefault("transformer_options", {}).setdefault("wrappers", {})
        theirs = wrappers.get(PREDICT_NOISE, {})
        wrappers[PREDICT_NOISE] = {KEY: [run.predict_noise], **theirs}  # outermost: once per call of the sampler
        conds = guider.conds
        guider.conds = with_one_noise_level(conds)
        try:
            groups = _weight_groups(guider)
            with guided_only(guider, modules, lambda: _prepared(modules, groups, ladder), run.differentiator):
                samples = executor(
                    guider, sigmas.clone(), extra_args, run.callback, noise, latent_image, None, disable_pbar
                )  # UniPC writes into its sigmas: on the CPU those of the caller
            samples = run.finish(samples)
        finally:
            guider.conds = conds
            wrappers[PREDICT_NOISE] = theirs
        self._done(run, samples)
        return samples

    # ---- what other doors and methods do otherwise, see `doors`, `parts` and `baselines`

    def _prepare(self, guider, settings: GuidanceSettings, noise: torch.Tensor) -> None:
        """Before anything else; the host has loaded the models."""

    def _before(self, latent: torch.Tensor, sigmas: torch.Tensor) -> Before | None:
        """What a run that adds no noise to its latent goes on from."""
        before = unfinished.before(latent)
        if before is not None:
            log.info("GradPaint: goes on after step %d of a run that left its noise in", len(before.sigmas) - 1)
        elif float(sigmas[0]) > 0:
            log.warning(
                "GradPaint: no noise is added in this run, and its latent is from no GradPaint run that is "
                "remembered. Noise that is in the part to keep will stay there. To split a run have GradPaint "
                "make its first part too"
            )
        return before

    _plan = staticmethod(probe_sampler)

    def _new_run(
        self,
        seed: int | None,
        before: Before | None,
        guider,
        settings: GuidanceSettings,
        latent: torch.Tensor,
        mask: torch.Tensor,
        sigmas: torch.Tensor,
        *others,
    ) -> GuidedRun:
        steps = sigmas[:0] if before is None else before.sigmas[:-1].to(sigmas)
        part = Part(torch.cat([steps, sigmas]), len(steps), len(steps) + len(sigmas) - 1)
        earlier = None if before is None else before.handover
        return PartRun(guider, settings, latent, mask, sigmas, *others, part=part, earlier=earlier)

    def _noise_left(self, run: PartRun, samples: torch.Tensor) -> None:
        unfinished.remember(run, samples)
        if run.settings.schedule.mode != "steps" and any(run.guided):
            log.info(
                "GradPaint: noise is left, for a second part of the run. The guided share was counted over this "
                "part alone, not knowing the other; a number of steps would not depend on it"
            )

    def _done(self, run: GuidedRun, samples: torch.Tensor) -> None:
        if isinstance(run, PartRun) and float(run.sigmas[-1]) > 0:
            self._noise_left(run, samples)
        learn(run, run.record)
        _report(run)
        if self.on_record is not None:
            self.on_record(run.record)


def _leave_alone(sampler, sigmas: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether the run is to be a plain one, and the log has been told why."""
    if getattr(sampler, "acts_for_gradpaint", False):
        log.info(
            "GradPaint: both the model and the sampler have GradPaint on them: the GradPaint Sampler's settings hold"
        )
    elif mask is None:
        log.warning(
            "GradPaint: the latent has no noise mask, so there is nothing to inpaint: plain sampling. "
            "Connect a mask, or use Set Latent Noise Mask before the sampler."
        )
    elif is_full(mask):
        log.warning(
            "GradPaint: the noise mask is 1 everywhere, so there is nothing to keep: plain sampling. If it is "
            "inverted, put Invert Mask before it."
        )
    elif is_empty(mask):
        log.warning(
            "GradPaint: the noise mask is 0 everywhere, so there is nothing to repaint: plain sampling. "
            "Paint the hole white."
        )
    elif float(sigmas[-1]) > float(sigmas[0]):
        log.info("GradPaint: the noise grows over this run (Flip Sigmas), so there is nothing to guide: plain sampling")
    else:
        return False
    return True


def _check_latent(model, latent_image: torch.Tensor, noise: torch.Tensor) -> None:
    channels = getattr(model.latent_format, "latent_channels", None)
    if latent_image.ndim > 3 and channels not in (None, latent_image.shape[1]):  # packed ones have fewer dimensions
        raise ValueError(
            f"the latent has {latent_image.shape[1]} channels, but this model works on "
            f"{channels}: it is another model's. Encode the picture with the VAE that belongs to this "
            "model (pixel_space, in the VAE loader, for models of pixels)"
        )
    if latent_image.shape[1:] != noise.shape[1:]:  # Hunyuan Image's refiner
        raise ValueError(
            f"GradPaint needs the given latent to know what to keep, but {type(model).__name__} turns it "
            f"into one of shape {tuple(latent_image.shape)} and samples one of shape "
            f"{tuple(noise.shape)}: it starts from an empty latent only. Inpaint with the model that the "
            "picture is made with, and take the noise mask off the latent here"
        )


def _check_supported(guider, modules: list[torch.nn.Module]) -> None:
    if modules and "multigpu_clones" in guider.model_options:
        raise ValueError(
            "GradPaint can't differentiate through a model split over several GPUs; remove the MultiGPU "
            "node from this model's path"
        )
    for model in modules:
        if hasattr(model, "diffusion_model"):
            check_engine(model)


@contextlib.contextmanager
def _prepared(modules: list[torch.nn.Module], groups: WeightGroups | None, ladder: MemoryLadder):
    with differentiable(modules, groups), ladder.installed(modules, groups):
        yield


def without_graph_replay(executor, *args, **kwargs):
    """`outer_sample` wrapper: hosts from 0.34 on replay recorded CUDA graphs, which have no backward pass."""
    flags = comfy.cli_args.args
    before = getattr(flags, "disable_comfy_compiler", None)
    if before is None:
        return executor(*args, **kwargs)
    flags.disable_comfy_compiler = True
    try:
        return executor(*args, **kwargs)
    finally:
        flags.disable_comfy_compiler = before


def with_one_noise_level(conds: dict) -> dict:
    """Conditioning that gives every part of the state the noise level it has.

    The host keeps known regions clean for some video models (LTXV, Cosmos Predict 2, Wan 2.2) and tells them so by the
    mask. Here the known region is as noisy as the hole (eq. 3). Negative values are marks of another kind.
    """

    def changed(cond: dict) -> dict:
        model_conds = {
            key: value._copy_with(value.cond.where(value.cond < 0, 1.0)) if key.endswith("denoise_mask") else value
            for key, value in cond.get("model_conds", {}).items()
        }
        return {**cond, "model_conds": model_conds}

    return {name: [changed(cond) for cond in group] for name, group in conds.items()}


def _for_model(settings: GuidanceSettings, model) -> GuidanceSettings:
    through_model = settings.gradient != "x0"
    return dataclasses.replace(settings, alignment=alignment_on(model, settings.alignment, through_model))


def _fine(mask: torch.Tensor | None, latent: torch.Tensor) -> torch.Tensor | None:
    """The user's mask if it is one of pictures, on the latent's device."""
    return None if mask is None or mask.is_nested or mask.ndim > 4 else mask.to(latent.device, torch.float32)


def _weight_groups(guider) -> WeightGroups | None:
    """For a model whose weights change with the conditioning; None where no conditioning has hooks."""
    patcher = guider.model_patcher
    hooked = any(cond.get("hooks") is not None for conds in guider.conds.values() for cond in conds)
    return WeightGroups(patcher) if hooked or patcher.current_hooks is not None else None


def _differentiated_modules(guider) -> list[torch.nn.Module]:
    """The diffusion model and whatever else takes part in an evaluation (ControlNets, model patches and the like)."""
    patchers = [*guider.loaded_models, *guider.model_patcher.model_patches_models()]
    models = [guider.inner_model, *(getattr(patcher, "model", None) for patcher in patchers)]
    models += vars(guider).values()  # DualModelGuider has a second one for the negative conditioning
    for cond in (cond for conds in guider.conds.values() for cond in conds):
        control = cond.get("control")
        while control is not None:  # the networks of Control-LoRAs and T2I adapters are on no list of the host's
            models += vars(control).values()
            control = getattr(control, "previous_controlnet", None)
    return list({id(model): model for model in models if isinstance(model, torch.nn.Module)}.values())


def _report(run: GuidedRun) -> None:
    record = run.record
    log.info(
        "GradPaint: %d steps, %d guided, %d model evaluations, %d backward passes",
        record.steps,
        len(record.guided_sigmas),
        record.evaluations,
        record.backwards,
    )
    if run.stop is not None:
        log.info("GradPaint: %s", record.stop)
    if record.memory.rungs:
        memory = record.memory
        peak = (
            ""
            if memory.peak_bytes is None
            else (f"; at most {memory.peak_bytes / 2**20:.1f} MiB in a guided step ({memory.peak_kind})")
        )
        log.info("GradPaint: memory: %s%s, %d steps made again", memory.rungs[-1], peak, memory.repeats)
    if record.mse:
        log.info(
            "GradPaint: masked MSE of x0_hat %.4g at the first guided step, %.4g at the last",
            float(record.mse[0].mean()),
            float(record.mse[-1].mean()),
        )
    if record.skipped_nudges:
        log.warning(
            "GradPaint: %d nudges left out because their gradient was not finite; try a model in bf16 or fp32",
            record.skipped_nudges,
        )
