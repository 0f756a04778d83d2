"""A run that is split over several GradPaint KSamplers (Advanced): each segment is guided as it would be in one run.

What a later segment needs of the earlier ones travels in the LATENT under LATENT_KEY, beside the noisy samples; nodes
that hand a LATENT on copy it along.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from ....gradpaint.method.plan import step_kinds
from ....gradpaint.method.record import StepKind
from ....gradpaint.method.settings import GuidanceSettings, MemorySettings
from ....gradpaint.sampling.inpaint_method import InpaintMethod
from ..report.record import RunRecord
from .entry_point import EntryPoint, handover_of
from .ksampler import ksample, sigmas_of
from .run import GuidedRun
from .segment import Handover, Segment
from .wrapper import GradPaintWrapper, with_wrapper

log = logging.getLogger(__name__)

LATENT_KEY = "gradpaint"


class SegmentEntryPoint(EntryPoint):
    """One segment.

    Args:
        segment: Which.
        earlier: What the segment before it handed over; None for the first.
    """

    def __init__(self, segment: Segment, earlier: Handover | None) -> None:
        self.segment, self.earlier = segment, earlier
        self.handover: Handover | None = None  # for the next segment, if noise is left at this one's end

    def may_guide(self, settings: GuidanceSettings) -> bool:
        kinds = step_kinds(settings, len(self.segment.sigmas) - 1)
        return StepKind.GUIDED in kinds[self.segment.first : self.segment.last]

    def resume(self, latent: Tensor, sigmas: Tensor, adds_noise: bool) -> tuple[Segment, Handover | None]:
        return self.segment, self.earlier

    def known(self, latent: Tensor, handover: Handover | None) -> Tensor:
        if handover is not None and handover.known.shape != latent.shape:
            raise ValueError(
                f"latent_image was changed between the two parts of the run: it has shape "
                f"{tuple(latent.shape)} now, and the first part had {tuple(handover.known.shape)}. "
                "Finish the run first, then resize or cut the latent"
            )
        return super().known(latent, handover)

    def finished(self, run: GuidedRun, samples: Tensor) -> None:
        segment = run.setup.segment
        if segment.first or segment.after:
            steps = len(segment.sigmas) - 1
            log.info("GradPaint: steps %d to %d of %d:", segment.first + 1, steps - segment.after, steps)
        super().finished(run, samples)

    def noise_left(self, run: GuidedRun, samples: Tensor) -> None:
        self.handover = handover_of(run)


def earlier_segment(latent: dict, segment: Segment, add_noise: bool) -> Handover | None:
    """What the LATENT brings along from the segment before.

    Raises:
        ValueError: It has to bring something and does not, or it should not.
    """
    if segment.is_empty:
        return None
    if add_noise:
        check_clean(latent)
        return None
    if latent["samples"].is_nested:
        raise ValueError(
            "add_noise is disable, but ComfyUI's KSampler (Advanced) can't go on from a latent of several "
            "parts (video with sound); make the whole run in one node"
        )
    handover = latent.get(LATENT_KEY)
    if handover is None:
        raise ValueError(
            "add_noise is disable, so latent_image is taken to be noisy, but it does not bring along the "
            "clean latent that says what to keep. Make the first part of the run with GradPaint KSampler "
            "(Advanced) too, with return_with_leftover_noise enable and strength 0 if it is not to be "
            "guided; or set add_noise to enable"
        )
    return handover


def check_clean(latent: dict) -> None:
    """Raise ValueError for a LATENT with noise that an unfinished run has left in it."""
    handover, samples = latent.get(LATENT_KEY), latent["samples"]
    if handover is not None and (samples is handover.noisy or _same(samples, handover.noisy)):
        raise ValueError(
            "latent_image still has the noise of an unfinished run in it, which would be taken for a part "
            "of the picture. To go on with that run use GradPaint KSampler (Advanced) with add_noise "
            "disable; to start from this latent, finish it first"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return not a.is_nested and not b.is_nested and a.shape == b.shape and torch.equal(a, b)


def with_handover(latent: dict, handover: Handover | None) -> dict:
    """The LATENT with what the next segment needs, without it where handover is None."""
    rest = {key: value for key, value in latent.items() if key != LATENT_KEY}
    return rest if handover is None else {**rest, LATENT_KEY: handover._replace(noisy=latent["samples"])}


def ksample_segment(
    model: Any,
    settings: GuidanceSettings,
    latent: dict,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: list,
    negative: list,
    *,
    first: int,
    last: int,
    add_noise: bool,
    leave_noise: bool,
    memory: MemorySettings | None = None,
    keep: bool = False,
) -> tuple[dict, RunRecord]:
    """Some of a run's steps, as KSampler (Advanced) makes them, guided.

    Args:
        model, seed, cfg, sampler_name, scheduler, positive, negative: As KSampler (Advanced) takes them.
        settings: GradPaint's.
        latent: The LATENT, with its noise mask.
        steps: Of the whole run.
        first, last: The segment begins after the first and ends after the last of them.
        add_noise: Noise is added to the latent first; without it the run goes on from the latent.
        leave_noise: At `last`, noise stays in the result.
        memory, keep: See `apply_gradpaint`.

    Returns:
        The LATENT and the segment's record.

    Raises:
        ValueError: See `earlier_segment`; or the LATENT does not fit what it brings along.
    """
    segment = Segment(sigmas_of(model, steps, sampler_name, scheduler), first, last)
    entry = SegmentEntryPoint(segment, earlier_segment(latent, segment, add_noise))
    records: list[RunRecord] = []
    wrapper = GradPaintWrapper(InpaintMethod(settings), entry, records.append, memory, latent["noise_mask"], keep)
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
    handover = latent.get(LATENT_KEY) if segment.is_empty else entry.handover
    return with_handover(out, handover), next(iter(records), RunRecord())
