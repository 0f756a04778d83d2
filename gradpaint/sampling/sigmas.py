"""Which noise levels a run visits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..method.settings import check_number


def run_sigmas(denoiser: Any, steps: int, sampler: str = "ddpm") -> Tensor:
    """Noise levels of a run of that many steps, (steps + 1,), descending to 0.

    A model that has learned its sampler's variance is sampled by ddpm at whole timesteps, rounded as in the original's
    respacing, which that variance belongs to; any other at evenly spaced ones.

    Args:
        denoiser: With a table of `sigmas`, and `respaced_sigmas` if it has learned the variance.
        steps: Number of steps.
        sampler: "ddpm" or "ddim".
    """
    if sampler == "ddpm" and getattr(denoiser, "learns_variance", False):
        return denoiser.respaced_sigmas(steps)
    return spaced_sigmas(denoiser.sigmas, steps)


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
    return torch.cat([log_sigma.exp(), torch.zeros(1, dtype=torch.float64)])[-(steps + 1) :].float()
