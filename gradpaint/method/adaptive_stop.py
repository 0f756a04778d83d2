"""Early stop that knows when: guidance of a sample ends when its normalized loss has stopped falling.

The masked MSE of x0_hat (eq. 5) falls in any run, because the noise does. What tells whether there is still something
to gain is how it compares with what noise alone would leave. Of states a*x0 + b*eps of pixels with variance v that have
nothing to do with each other, the best estimate has the error

    v * b^2 / (a^2 * v + b^2),      and      n = MSE / that error

is the normalized loss: about 1 at the start, where nothing can be seen; falling while structure emerges, which is when
guidance decides what the hole will show; flat, then rising while texture is filled in. A sample is done when n has not
fallen by `tolerance` for `patience` of the run, having fallen to half at least: models whose schedule starts at very
strong noise spend their first steps on a plateau near 1. What counts is the lowest n so far, so that a single noisy
step neither stops nor prolongs it; and both are relative, so that the number of steps does not matter.

Decisions are tensors on the loss's device. They take effect on a sample's own displacements at once, so that no
image depends on its neighbors; a batch saves its backward passes when all its samples are done.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .losses import weighted_mean
from .settings import GuideSchedule

FLOOR = 1e-6  # of the variance: a flat known part
BEGUN = 0.5  # normalized loss: above it a loss that does not fall has not begun to, the noise hides everything
FEWEST = 2  # steps without a fall, in the shortest runs: one alone may be noise


@dataclass
class StopReport:
    """How guidance ended.

    Attributes:
        step: Number of steps that guidance lasted, from the run's start.
        reason: "schedule": its share or number of steps was done; "loss": the losses of all samples had stopped
            falling.
        saved: Backward passes that the schedule allowed for and that were not made.
        samples: Of an adaptive schedule: for each sample the number of steps after which it was no longer displaced.
    """

    step: int = 0
    reason: str = "schedule"
    saved: int = 0
    samples: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        if self.reason == "schedule":
            return f"guidance lasted {self.step} step{'' if self.step == 1 else 's'}, as scheduled"
        return (
            f"guidance stopped after step {self.step}, its loss no longer falling; {self.saved} backward passes saved"
        )


class AdaptiveStop:
    """Made once per run; given each guided step's loss.

    Args:
        schedule: An adaptive one.
        y: (B, ...), the known image, for the variance of what is known.
        mask: Broadcasts to y.
        steps: Of the run.
        lag: How many guided steps old the decision may be by which steps are left out. With 0 the caller waits for the
            loss just computed; with 1 a GPU always has a step's work ahead of it, for at most one backward pass more.
            The result is the same: a sample that is done is not displaced.
    """

    def __init__(self, schedule: GuideSchedule, y: Tensor, mask: Tensor, steps: int, lag: int = 0) -> None:
        self.tolerance, self.lag = schedule.tolerance, lag
        self.patience = max(FEWEST, round(schedule.patience * steps))
        self.earliest = round(schedule.minimum * steps)
        known = 1 - mask
        y = y.float()
        shape = (-1,) + (1,) * (y.ndim - 1)
        self.variance = weighted_mean((y - weighted_mean(y, known).view(shape)) ** 2, known).clamp(min=FLOOR)
        self.best = torch.full_like(self.variance, float("inf"))
        self.best_at = torch.zeros_like(self.variance, dtype=torch.long)
        self.done_after = torch.zeros_like(self.best_at)  # number of steps; 0: still guided
        self._flags: list[Tensor] = []

    def update(self, i: int, mse: Tensor, a: float, b: float) -> None:
        """Guided step i had this masked MSE, a mean over the known values, (B,), at a state a*x0 + b*eps.

        Samples that are done by it are done from step i + 1 on.
        """
        n = mse.to(self.variance) * (a * a * self.variance + b * b) / (self.variance * max(b * b, 1e-12))
        lower = n < self.best * (1 - self.tolerance)
        self.best = torch.where(lower, n, self.best)
        self.best_at = torch.where(lower, i, self.best_at)
        stale = (i - self.best_at >= self.patience) & (self.best < BEGUN) & (self.done_after == 0)
        if i + 1 >= self.earliest:
            self.done_after = torch.where(stale, i + 1, self.done_after)
        self._flags.append((self.done_after > 0).all())

    def over(self) -> bool:
        """Whether all samples are known to be done; looks at a decision `lag` guided steps old."""
        return len(self._flags) > self.lag and bool(self._flags[-1 - self.lag])

    def limited(self, displacement: Tensor, i: int) -> Tensor:
        """Step i's displacement (B, ...), 0 for samples that are done by then."""
        moved = (self.done_after == 0) | (self.done_after > i)
        return torch.where(moved.view((-1,) + (1,) * (displacement.ndim - 1)), displacement, 0.0)

    def report(self, planned: list[bool], done: int) -> StopReport:
        """How guidance ended. Waits for the last decision.

        Args:
            planned: Which steps the schedule would have guided.
            done: How many were.
        """
        samples = self.done_after.tolist()
        last = max((i + 1 for i, guided in enumerate(planned) if guided), default=0)
        if not samples or 0 in samples or max(samples) >= last:
            return StopReport(last, "schedule", 0, [count or last for count in samples])
        return StopReport(max(samples), "loss", sum(planned) - done, samples)
