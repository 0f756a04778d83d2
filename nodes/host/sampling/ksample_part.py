"""A run that is split over several GradPaint KSamplers (Advanced): each part is guided as it would be in the whole run.

What a later part needs of the earlier ones travels in the LATENT under LATENT_KEY, beside the noisy samples; nodes that
hand a LATENT on copy it along.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ....gradpaint.method.plan import guided_steps
from ....gradpaint.method.settings import GuidanceSettings, MemorySettings
from ..report.record import RunRecord
from .ksampler import ksample, sigmas_of
from .part_run import Handover, Part, PartRun
from .run import GuidedRun
from .wrapper import GradPaintWrapper, with_wrapper

log = logging.getLogger(__name__)

LATENT_KEY = "gradpaint"


class PartWrapper(GradPaintWrapper):
    """The `sampler_sample` wrapper of one part. on_handover: called with a Handover if noise is left at its end."""

    def __init__(self, settings: GuidanceSettings, part: Part, earlier: Handover | None, on_handover, **others):
        super().__init__(settings, **others)
        self.part, self.earlier, self.on_handover = part, earlier, on_handover

    @property
    def differentiates(self) -> bool:
        steps = guided_steps(self.settings.schedule, len(self.part.sigmas) - 1)
        return super().differentiates and any(steps[self.part.first : self.part.last])

    def _new_run(self, seed: int | None, before, guider, settings, latent: Tensor, *arguments) -> GuidedRun:
        return PartRun(guider, settings, self._known(latent), *arguments, part=self.part, earlier=self.earlier)

    def _known(self, latent: Tensor) -> Tensor:
        if self.earlier is None:
            return latent
        if self.earlier.known.shape != latent.shape:
            raise ValueError(
                f"latent_image was changed between the two parts of the run: it has shape "
                f"{tuple(latent.shape)} now, and the first part had {tuple(self.earlier.known.shape)}. "
                "Finish the run first, then resize or cut the latent"
            )
        return self.earlier.known.to(latent)

    def _before(self, latent: Tensor, sigmas: Tensor) -> None:
        """The clean latent has been handed over."""

    def _done(self, run: PartRun, samples: Tensor) -> None:
        if run.part.first or run.part.after:
            log.info(
                "GradPaint: steps %d to %d of %d:",
                run.part.first + 1,
                len(run.part.sigmas) - 1 - run.part.after,
                len(run.part.sigmas) - 1,
            )
        super()._done(run, samples)

    def _noise_left(self, run: PartRun, samples: Tensor) -> None:
        self.on_handover(run.handover())


def earlier_part(latent: dict, part: Part, add_noise: bool) -> Handover | None:
    """What the LATENT brings along from the part before. ValueError if it has to and does not, or if it should not."""
    if part.is_empty:
        return None
    if add_noise:
        check_clean(latent)
        return None
    if latent["samples"].is_nested:
        raise ValueError(
            "add_noise is disable, but ComfyUI's KSampler (Advanced) can't go on from a latent of several "
            "parts (video with sound); make the whole run in one node"
        )
    found = latent.get(LATENT_KEY)
    if found is None:
        raise ValueError(
            "add_noise is disable, so latent_image is taken to be noisy, but it does not bring along the "
            "clean latent that says what to keep. Make the first part of the run with GradPaint KSampler "
            "(Advanced) too, with return_with_leftover_noise enable and strength 0 if it is not to be "
            "guided; or set add_noise to enable"
        )
    return found


def check_clean(latent: dict) -> None:
    """ValueError for a LATENT with noise that an unfinished run has left in it."""
    found, samples = latent.get(LATENT_KEY), latent["samples"]
    if found is not None and (samples is found.noisy or _same(samples, found.noisy)):
        raise ValueError(
            "latent_image still has the noise of an unfinished run in it, which would be taken for a part "
            "of the picture. To go on with that run use GradPaint KSampler (Advanced) with add_noise "
            "disable; to start from this latent, finish it first"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return not a.is_nested and not b.is_nested and a.shape == b.shape and torch.equal(a, b)


def with_handover(latent: dict, found: Handover | None) -> dict:
    """The LATENT with what the next part needs, without it where found is None."""
    rest = {key: value for key, value in latent.items() if key != LATENT_KEY}
    return rest if found is None else {**rest, LATENT_KEY: found._replace(noisy=latent["samples"])}


def ksample_part(
    model,
    settings: GuidanceSettings,
    latent: dict,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive,
    negative,
    *,
    first: int,
    last: int,
    add_noise: bool,
    leave_noise: bool,
    memory: MemorySettings | None = None,
    keep: bool = False,
) -> tuple[dict, RunRecord]:
    """Steps `first` to `last` of a run of `steps` steps, as KSampler (Advanced) makes them, guided.

    latent: with its noise mask; leave_noise: at `last`, noise stays in the result. Returns the LATENT and the part's
    record. ValueError: see `earlier_part`, and where the LATENT does not fit what it brings along.
    """
    part = Part(sigmas_of(model, steps, sampler_name, scheduler), first, last)
    earlier, records, handed = earlier_part(latent, part, add_noise), [], []
    wrapper = PartWrapper(
        settings,
        part,
        earlier,
        handed.append,
        on_record=records.append,
        memory=memory,
        mask=latent["noise_mask"],
        keep=keep,
    )
    out = ksample(
        with_wrapper(model, wrapper),
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        latent,
        disable_noise=not add_noise,
        start_step=first,
        last_step=last,
        force_full_denoise=not leave_noise,
    )
    found = latent.get(LATENT_KEY) if part.is_empty else next(iter(handed), None)
    return with_handover(out, found), next(iter(records), RunRecord())
