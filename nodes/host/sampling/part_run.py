"""Some of a run's steps, guided as they would be in the whole run: guided steps are counted over all of it."""

from __future__ import annotations

import copy
import dataclasses
from typing import NamedTuple

from torch import Tensor

from ....gradpaint.method.adaptive_stop import AdaptiveStop, StopReport
from ....gradpaint.method.plan import guided_steps, kept_steps
from .run import GuidedRun


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
        return Handover(self.y.cpu(), self._grad.cpu() if keeps else None, stop, before + len(self.record.guided_steps))

    def _whole(self) -> tuple[list[bool], list[bool]]:
        """Guided and kept steps of the whole run, up to this part's end."""
        first, total = self.part.first, self.counter.total
        steps = first + total + self.part.after
        return tuple(
            [on and self.settings.active for on in chosen(self.settings.schedule, steps)][: first + total]
            for chosen in (guided_steps, kept_steps)
        )

    def _schedule(self, end: int | None = None) -> None:
        first = self.part.first
        self.guided, self.kept = (
            [on and (end is None or i < end) for i, on in enumerate(steps[first:])] for steps in self._whole()
        )

    def _stop_report(self) -> StopReport:
        self._schedule()  # as planned
        planned, _ = self._whole()
        if self.stop is None or not any(planned):
            return StopReport(max((i + 1 for i, on in enumerate(planned) if on), default=0))
        before = sum(planned[: self.part.first]) if self.earlier is None else self.earlier.gradients
        report = self.stop.whole.report(planned, before + len(self.record.guided_steps))
        return report if self.settings.gradient != "x0" else dataclasses.replace(report, saved=0)

    def _mask_at(self, timestep: Tensor, model_options: dict) -> Tensor:
        function = model_options.get("denoise_mask_function")
        if function is None:
            return self.mask
        sigmas = self.part.sigmas.to(self.sigmas)  # its thresholds are spread over the whole run
        return function(timestep, self.mask, extra_options={"model": self.guider, "sigmas": sigmas})
