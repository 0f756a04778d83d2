"""Which steps of a run are guided."""

from __future__ import annotations

import math

from .settings import GuideSchedule, check_number


def guided_steps(schedule: GuideSchedule, total_steps: int) -> list[bool]:
    """For each of the run's steps whether its gradient is taken; with "adaptive" whether it may be.

    A fraction is rounded to the nearest number of steps, halves down; one above 0 guides at least one step.
    """
    count = _candidates(schedule, total_steps)
    return [i < count and i % schedule.every == 0 for i in range(total_steps)]


def kept_steps(schedule: GuideSchedule, total_steps: int) -> list[bool]:
    """For each of the run's steps whether it is nudged in the last guided step's direction, without a gradient."""
    count = _candidates(schedule, total_steps) if schedule.between == "keep" else 0
    return [i < count and i % schedule.every != 0 for i in range(total_steps)]


def _candidates(schedule: GuideSchedule, total_steps: int) -> int:
    """How many steps from the start guidance lasts, at most."""
    check_number("total_steps", total_steps, 0, 1_000_000, integer=True)
    if schedule.mode == "steps":
        return schedule.steps
    share = schedule.maximum if schedule.mode == "adaptive" else schedule.fraction
    return max(math.ceil(share * total_steps - 0.5 - 1e-9), 1 if share > 0 else 0)
