"""When to guide, and which noise levels a run visits."""
from __future__ import annotations

import math

import torch
from torch import Tensor

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


def spaced_sigmas(table: Tensor, steps: int, denoise: float = 1.0) -> Tensor:
    """Noise levels of a run over a trained table: linear in timestep from the last entry to the first, then 0.

    table: (T,) ascending sigmas of the trained timesteps; levels between two of them are interpolated in log sigma.
    Returns (steps + 1,), descending, float32. This is the host's "normal" scheduler. denoise < 1 takes the last
    `steps` of `steps / denoise` levels, as the host does.
    """
    check_number("steps", steps, 1, 10_000, integer=True)
    check_number("denoise", denoise, 1e-4, 1.0)
    if table.ndim != 1 or len(table) < 2 or not bool((table.diff() > 0).all()):
        raise ValueError(f"table has shape {tuple(table.shape)}, but must be one-dimensional and ascending")
    total = steps if denoise > 0.9999 else int(steps / denoise)
    t = torch.linspace(len(table) - 1, 0, total, dtype=torch.float64) if total > 1 else torch.tensor([len(table) - 1.0])
    low = t.floor().long().clamp(max=len(table) - 2)
    log_sigma = torch.lerp(table.double().log()[low], table.double().log()[low + 1], t.double() - low)
    return torch.cat([log_sigma.exp(), torch.zeros(1, dtype=torch.float64)])[-(steps + 1):].float()
