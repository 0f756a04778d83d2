"""The plan of a run: which steps are guided, reused or plain, when each loss term ends, and what eq. 9 adds.

One plan serves the library's runs and ComfyUI's. Steps are counted over the whole run, also where a run is split into
segments: a segment's plan is told its first step and the progress of the segment before it.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .adaptive_stop import AdaptiveStop, StopReport
from .gradient import LossGradient
from .losses import masked_mse_eq5, per_pixel
from .record import StepKind
from .settings import GuidanceSettings, GuideSchedule, check_number
from .step import Level, displacement, step_size
from .terms import MSE, LossTerm, border_loss, loss_terms


class NoiseLevels(Protocol):
    """A model's states `a*x0 + b*eps` by noise level."""

    def __getitem__(self, sigma: float) -> Level:
        """(a, b) at that level."""

    def scale(self, sigma: float) -> float:
        """s(sigma) = sqrt(a^2 + b^2), see `step`."""


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        index: Its number, from 0.
        sigma: Noise level of the state that it starts from.
        sigma_next: Noise level of the state that it produces.
    """

    index: int
    sigma: float
    sigma_next: float


class Progress(NamedTuple):
    """What a later segment of a run needs from those before it.

    Attributes:
        gradient: The last one taken, (B, ...), where later steps may reuse it.
        stop: Of an adaptive schedule.
        gradients: How many have been taken.
    """

    gradient: Tensor | None = None
    stop: AdaptiveStop | None = None
    gradients: int = 0


class RunPlan:
    """One run's plan, or that of one of its segments. Steps given to its methods are counted from the segment's first.

    Args:
        settings: None: every step is plain.
        y: (B, ...), the known image; of an adaptive schedule its variance is used.
        mask: Broadcasts to y.
        count: Number of the segment's steps.
        first: Number of the run's steps before them.
        after: Number of the run's steps after them.
        resume: The progress of the segments before, where they were guided.
        lag: See `AdaptiveStop`.
    """

    def __init__(
        self,
        settings: GuidanceSettings | None,
        y: Tensor,
        mask: Tensor,
        count: int,
        *,
        first: int = 0,
        after: int = 0,
        resume: Progress | None = None,
        lag: int = 0,
    ) -> None:
        self.settings, self.first, self._after, self._resume = settings, first, after, resume
        self.terms = () if settings is None else loss_terms(settings)
        self.recount(count)
        self.gradient: LossGradient | None = None  # the last one taken in this segment
        self._direction = None if resume is None or resume.gradient is None else resume.gradient.to(y)
        self._taken = 0
        self._end: int | None = None  # from this step of the run on all is plain, by the adaptive stop
        self._finite: list[Tensor] = []  # (B,) bool for each displacement
        self.stop: AdaptiveStop | None = None
        if settings is not None and settings.schedule.mode == "adaptive":
            earlier = None if resume is None else copy.deepcopy(resume.stop)  # a segment may be sampled twice
            self.stop = earlier or AdaptiveStop(settings.schedule, y, mask, first + count + after, lag)

    def recount(self, count: int) -> None:
        """The segment turns out to have this number of steps."""
        self.count, steps = count, self.first + count + self._after
        self._kinds = [StepKind.PLAIN] * steps if self.settings is None else step_kinds(self.settings, steps)
        self._ends = {term.name: share_of(term.fraction, steps) for term in self.terms}

    # ---- before the run

    def planned(self) -> list[StepKind]:
        """The segment's steps as they are planned, whatever an adaptive stop will do."""
        return self._kinds[self.first : self.first + self.count]

    @property
    def guides(self) -> bool:
        """Whether any step of the segment is to be guided."""
        return StepKind.GUIDED in self.planned()

    # ---- during it

    def begin(self, i: int) -> StepKind:
        """Step i begins: what happens at it. An adaptive stop may have ended guidance."""
        if self.stop is not None and self.kind(i) is not StepKind.PLAIN and self.stop.over():
            self._end = self.first + i
        return self.kind(i)

    def kind(self, i: int) -> StepKind:
        """What happens at step i."""
        step = self.first + i
        kind = self._kinds[step]
        if self._end is not None and step >= self._end:
            return StepKind.PLAIN
        return StepKind.PLAIN if kind is StepKind.REUSED and self._direction is None else kind

    def terms_at(self, i: int) -> tuple[LossTerm, ...]:
        """The loss terms, those switched off that have ended before step i."""
        return tuple(term if self.first + i < self._ends[term.name] else term.off() for term in self.terms)

    def take(self, i: int, gradient: LossGradient, level: Level, mask: Tensor) -> None:
        """Guided step i, from a state of that level, has this gradient; mask: the one that its losses went by."""
        self.gradient, self._direction = gradient, gradient.gradient
        self._taken += 1
        if self.stop is not None:
            mse = gradient.losses[MSE]
            if self.settings is not None and border_loss(self.settings.alignment.loss).mse is masked_mse_eq5:
                # The stop goes by a mean over the known values; eq. 5 is a sum over channels, a mean over all pixels.
                known = per_pixel(((1 - mask.float()) ** 2).expand_as(gradient.gradient))
                mse = mse / torch.where(known > 0, known, 1.0)
            self.stop.update(self.first + i, mse, *level)

    def displacement(self, step: Step, levels: NoiseLevels) -> Tensor | None:
        """What eq. 9 adds to the state that the step produces, (B, ...); None where that is nothing."""
        if self.settings is None or self._direction is None or self.kind(step.index) is StepKind.PLAIN:
            return None
        alpha = step_size(self.settings, levels[step.sigma], levels[step.sigma_next])
        scale = levels.scale(step.sigma_next)
        moved, finite = displacement(self._direction, alpha, scale, self.settings.normalization)
        self.count_usable(finite)
        return moved if self.stop is None else self.stop.limited(moved, self.first + step.index)

    def count_usable(self, finite: Tensor) -> None:
        """Which samples of a displacement were usable, (B,) bool."""
        self._finite.append(finite)

    # ---- after it

    @property
    def skipped(self) -> int:
        """How many samples' displacements were left out, their gradient not being finite. Waits for the device."""
        return sum(int((~finite).sum()) for finite in self._finite)

    def report(self) -> StopReport:
        """How guidance ended. Waits for the device."""
        guided = [kind is StepKind.GUIDED for kind in self._kinds[: self.first + self.count]]
        if self.stop is None or self.settings is None or not any(guided):
            return StopReport(max((i + 1 for i, on in enumerate(guided) if on), default=0))
        before = sum(guided[: self.first]) if self._resume is None else self._resume.gradients
        report = self.stop.report(guided, before + self._taken)
        return report if self.settings.gradient != "x0" else dataclasses.replace(report, saved=0)

    def progress(self) -> Progress:
        """For the next segment."""
        reuses = self.settings is not None and self.settings.schedule.between == "keep"
        before = 0 if self._resume is None else self._resume.gradients
        return Progress(self._direction if reuses else None, self.stop, before + self._taken)


def step_kinds(settings: GuidanceSettings, steps: int) -> list[StepKind]:
    """What happens at each step of a run of that many steps; with an adaptive schedule, if nothing ends it earlier.

    A share of the run is rounded to the nearest number of steps, halves down; one above 0 guides at least one step.
    """
    schedule = settings.schedule
    terms = [term for term in loss_terms(settings) if term.weight]
    last = max((share_of(term.fraction, steps) for term in terms), default=0)
    count = min(_candidates(schedule, steps), last) if settings.active else 0
    others = StepKind.REUSED if schedule.between == "keep" else StepKind.PLAIN
    return [
        StepKind.PLAIN if i >= count else StepKind.GUIDED if i % schedule.every == 0 else others for i in range(steps)
    ]


def share_of(fraction: float, steps: int) -> int:
    """A share of a run in steps: the nearest number, halves down; at least one for a share above 0."""
    check_number("steps", steps, 0, 1_000_000, integer=True)
    return max(math.ceil(fraction * steps - 0.5 - 1e-9), 1 if fraction > 0 else 0)


def _candidates(schedule: GuideSchedule, steps: int) -> int:
    """How many steps from the start guidance lasts, at most."""
    if schedule.mode == "steps":
        return schedule.steps
    return share_of(schedule.maximum if schedule.mode == "adaptive" else schedule.fraction, steps)
