"""A run that is split over several sampler nodes: each part is guided as it would be in the whole run.

Guided steps are counted over the whole run. What a later part needs of the earlier ones travels in the LATENT under
LATENT_KEY, beside the noisy samples; nodes that hand a LATENT on copy it along.
"""
from __future__ import annotations

import copy
import dataclasses
import logging
from typing import NamedTuple

import torch
from torch import Tensor

from ...gradpaint.early_stop import AdaptiveStop, StopReport
from ...gradpaint.memory_settings import MemorySettings
from ...gradpaint.schedule import guided_steps, kept_steps
from ...gradpaint.settings import GuidanceSettings
from .guidance import GradPaintWrapper, with_wrapper
from .record import RunRecord
from .run import GuidedRun
from .sampling import ksample, sigmas_of

log = logging.getLogger(__name__)

LATENT_KEY = "gradpaint"


class Part(NamedTuple):
    """sigmas: noise levels of the whole run; first, last: steps of it after which the part begins and ends."""

    sigmas: Tensor
    first: int
    last: int

    @property
    def after(self) -> int:
        """Number of the run's steps after this part."""
        return max(len(self.sigmas) - 1 - self.last, 0)

    @property
    def is_empty(self) -> bool:
        return self.first >= min(self.last, len(self.sigmas) - 1)


class Handover(NamedTuple):
    """What a later part needs. known: the clean latent, as the host's samplers see it; grad: the last gradient taken,
    for steps that go on in its direction; stop: of an adaptive schedule; gradients: how many were taken so far; noisy:
    the samples beside it, to know them again."""

    known: Tensor
    grad: Tensor | None
    stop: AdaptiveStop | None
    gradients: int
    noisy: Tensor | None = None


class _CountedFrom:
    """An AdaptiveStop of the whole run, for a run that counts its steps from `first` on."""

    def __init__(self, stop: AdaptiveStop, first: int):
        self.whole, self._first = stop, first
        self.over = stop.over

    def update(self, i: int, *loss) -> None:
        self.whole.update(self._first + i, *loss)

    def limited(self, nudge: Tensor, i: int) -> Tensor:
        return self.whole.limited(nudge, self._first + i)


class PartRun(GuidedRun):
    """The steps `part` of a run; earlier: what the part before it handed over."""

    def __init__(self, *arguments, part: Part, earlier: Handover | None):
        self.part, self.earlier = part, earlier
        super().__init__(*arguments)
        if self.stop is not None:
            stop = None if earlier is None else copy.deepcopy(earlier.stop)
            if stop is None:
                whole = part.first + self.counter.total + part.after
                stop = AdaptiveStop(self.settings.schedule, self.y, self.mask, whole, self.stop.lag)
            self.stop = _CountedFrom(stop, part.first)
        if earlier is not None and earlier.grad is not None:
            self._grad = earlier.grad.to(self.y)

    def handover(self) -> Handover:
        """For the next part."""
        keeps = self._grad is not None and self.settings.schedule.between == "keep"
        stop = None if self.stop is None else self.stop.whole
        before = 0 if self.earlier is None else self.earlier.gradients
        return Handover(self.y.cpu(), self._grad.cpu() if keeps else None, stop,
                        before + len(self.record.guided_steps))

    def _whole(self) -> tuple[list[bool], list[bool]]:
        """Guided and kept steps of the whole run, up to this part's end."""
        first, total = self.part.first, self.counter.total
        steps = first + total + self.part.after
        return tuple([on and self.settings.active for on in chosen(self.settings.schedule, steps)][:first + total]
                     for chosen in (guided_steps, kept_steps))

    def _schedule(self, end: int | None = None) -> None:
        first = self.part.first
        self.guided, self.kept = ([on and (end is None or i < end) for i, on in enumerate(steps[first:])]
                                  for steps in self._whole())

    def _stop_report(self) -> StopReport:
        self._schedule()  # as planned
        planned, _ = self._whole()
        if self.stop is None or not any(planned):
            return StopReport(max((i + 1 for i, on in enumerate(planned) if on), default=0))
        before = sum(planned[:self.part.first]) if self.earlier is None else self.earlier.gradients
        report = self.stop.whole.report(planned, before + len(self.record.guided_steps))
        return report if self.settings.gradient != "x0" else dataclasses.replace(report, saved=0)

    def _mask_at(self, timestep: Tensor, model_options: dict) -> Tensor:
        function = model_options.get("denoise_mask_function")
        if function is None:
            return self.mask
        sigmas = self.part.sigmas.to(self.sigmas)  # its thresholds are spread over the whole run
        return function(timestep, self.mask, extra_options={"model": self.guider, "sigmas": sigmas})


class PartWrapper(GradPaintWrapper):
    """The `sampler_sample` wrapper of one part. on_handover: called with a Handover if noise is left at its end."""

    def __init__(self, settings: GuidanceSettings, part: Part, earlier: Handover | None, on_handover, **others):
        super().__init__(settings, **others)
        self.part, self.earlier, self.on_handover = part, earlier, on_handover

    @property
    def differentiates(self) -> bool:
        steps = guided_steps(self.settings.schedule, len(self.part.sigmas) - 1)
        return super().differentiates and any(steps[self.part.first:self.part.last])

    def _new_run(self, seed: int | None, guider, settings, latent: Tensor, *arguments) -> GuidedRun:
        return PartRun(guider, settings, self._known(latent), *arguments, part=self.part, earlier=self.earlier)

    def _known(self, latent: Tensor) -> Tensor:
        if self.earlier is None:
            return latent
        if self.earlier.known.shape != latent.shape:
            raise ValueError(f"latent_image was changed between the two parts of the run: it has shape "
                             f"{tuple(latent.shape)} now, and the first part had {tuple(self.earlier.known.shape)}. "
                             "Finish the run first, then resize or cut the latent")
        return self.earlier.known.to(latent)

    def _without_noise(self, sigmas: Tensor) -> None:
        """The clean latent has been handed over."""

    def _done(self, run: PartRun) -> None:
        if run.part.first or run.part.after:
            log.info("GradPaint: steps %d to %d of %d:", run.part.first + 1, len(run.part.sigmas) - 1 - run.part.after,
                     len(run.part.sigmas) - 1)
        super()._done(run)
        if float(run.sigmas[-1]) > 0:
            self.on_handover(run.handover())


def earlier_part(latent: dict, part: Part, add_noise: bool) -> Handover | None:
    """What the LATENT brings along from the part before. ValueError if it has to and does not, or if it should not."""
    if part.is_empty:
        return None
    if add_noise:
        check_clean(latent)
        return None
    if latent["samples"].is_nested:
        raise ValueError("add_noise is disable, but ComfyUI's KSampler (Advanced) can't go on from a latent of several "
                         "parts (video with sound); make the whole run in one node")
    found = latent.get(LATENT_KEY)
    if found is None:
        raise ValueError("add_noise is disable, so latent_image is taken to be noisy, but it does not bring along the "
                         "clean latent that says what to keep. Make the first part of the run with GradPaint KSampler "
                         "(Advanced) too, with return_with_leftover_noise enable and strength 0 if it is not to be "
                         "guided; or set add_noise to enable")
    return found


def check_clean(latent: dict) -> None:
    """ValueError for a LATENT with noise that an unfinished run has left in it."""
    found, samples = latent.get(LATENT_KEY), latent["samples"]
    if found is not None and (samples is found.noisy or _same(samples, found.noisy)):
        raise ValueError("latent_image still has the noise of an unfinished run in it, which would be taken for a part "
                         "of the picture. To go on with that run use GradPaint KSampler (Advanced) with add_noise "
                         "disable; to start from this latent, finish it first")


def _same(a: Tensor, b: Tensor) -> bool:
    return not a.is_nested and not b.is_nested and a.shape == b.shape and torch.equal(a, b)


def with_handover(latent: dict, found: Handover | None) -> dict:
    """The LATENT with what the next part needs, without it where found is None."""
    rest = {key: value for key, value in latent.items() if key != LATENT_KEY}
    return rest if found is None else {**rest, LATENT_KEY: found._replace(noisy=latent["samples"])}


def ksample_part(model, settings: GuidanceSettings, latent: dict, seed: int, steps: int, cfg: float, sampler_name: str,
                 scheduler: str, positive, negative, *, first: int, last: int, add_noise: bool, leave_noise: bool,
                 memory: MemorySettings | None = None, keep: bool = False) -> tuple[dict, RunRecord]:
    """Steps `first` to `last` of a run of `steps` steps, as KSampler (Advanced) makes them, guided.

    latent: with its noise mask; leave_noise: at `last`, noise stays in the result. Returns the LATENT and the part's
    record. ValueError: see `earlier_part`, and where the LATENT does not fit what it brings along.
    """
    part = Part(sigmas_of(model, steps, sampler_name, scheduler), first, last)
    earlier, records, handed = earlier_part(latent, part, add_noise), [], []
    wrapper = PartWrapper(settings, part, earlier, handed.append, on_record=records.append, memory=memory,
                          mask=latent["noise_mask"], keep=keep)
    out = ksample(with_wrapper(model, wrapper), seed, steps, cfg, sampler_name, scheduler, positive, negative, latent,
                  disable_noise=not add_noise, start_step=first, last_step=last, force_full_denoise=not leave_noise)
    found = latent.get(LATENT_KEY) if part.is_empty else next(iter(handed), None)
    return with_handover(out, found), next(iter(records), RunRecord())
