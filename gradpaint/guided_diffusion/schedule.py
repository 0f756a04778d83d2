"""Noise schedules of guided-diffusion models, and the timesteps that a shorter run visits (respacing)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import NOISE_SCHEDULES, ModelConfig


def noise_schedule(name: str, steps: int = 1000) -> Tensor:
    """Return the variances beta_1..beta_T of the forward process.

    `"linear"` (Ho et al., 2020) goes from 1e-4 to 0.02 over 1000 steps and scales with 1000 / steps; `"cosine"`
    (Nichol and Dhariwal, 2021, eq. 17) is capped at 0.999.

    Returns:
        (T,) float64.

    Raises:
        ValueError: unknown name, or too few steps for the schedule.
    """
    if name not in NOISE_SCHEDULES:
        raise ValueError(f"noise_schedule must be one of {NOISE_SCHEDULES}, got {name!r}")
    if steps < 2:
        raise ValueError(f"diffusion_steps must be at least 2, got {steps}")
    if name == "linear":
        scale = 1000 / steps
        betas = torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)
        if betas[-1] >= 1:
            raise ValueError(f"the linear schedule needs more than 20 diffusion_steps, got {steps}")
        return betas
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((t + 0.008) / 1.008 * (math.pi / 2)) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def trained_sigmas(config: ModelConfig) -> Tensor:
    """Return the noise levels sigma_t = sqrt((1 - abar_t) / abar_t), indexed by timestep, up to `config.sigma_max`.

    Returns:
        (T,) float64, ascending, with T at most `config.diffusion_steps`.
    """
    sigmas = _all_sigmas(config)
    return sigmas[sigmas <= config.sigma_max]


def space_timesteps(total: int, respacing: str) -> list[int]:
    """Choose the timesteps of a shorter run exactly as guided-diffusion's `--timestep_respacing` does.

    Args:
        total: number of trained timesteps.
        respacing: one count per equal section of the trained timesteps, separated by commas: `"100"`, or `"10,15,20"`
            for 10 steps in the first third (the least noisy), 15 in the second and 20 in the last. `"ddimN"` takes
            every k-th timestep from 0, for the smallest k that gives N of them.

    Returns:
        Timesteps, ascending.

    Raises:
        ValueError: `respacing` has another form, or asks for more steps than there are.
    """
    form = f"respacing is {respacing!r}, but must be counts of at least 1, such as '100', '10,15,20' or 'ddim50'"
    counts = respacing.removeprefix("ddim").split(",")
    if not all(count.strip().isdecimal() and int(count) > 0 for count in counts):
        raise ValueError(form)
    if respacing.startswith("ddim"):
        if len(counts) > 1:
            raise ValueError(form)
        return _every_kth(total, int(counts[0]))
    timesteps: list[int] = []
    start = 0
    for index, count in enumerate(map(int, counts)):
        size = total // len(counts) + (index < total % len(counts))
        if count > size:
            raise ValueError(f"respacing {respacing!r} asks for {count} of {size} timesteps; ask for at most {size}")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        # The original adds up the stride rather than multiplying it; the last bit can decide how 0.5 is rounded.
        position = 0.0
        for _ in range(count):
            timesteps.append(start + round(position))
            position += stride
        start += size
    return timesteps


def respaced_sigmas(config: ModelConfig, respacing: str) -> Tensor:
    """Return the noise levels of the run that guided-diffusion makes with this `--timestep_respacing`.

    Levels above `config.sigma_max` are left out, as they are in `trained_sigmas`. The linear schedule has none at the
    default; for the cosine schedule's first steps, load the model with a larger `sigma_max`.

    Args:
        config: the model's.
        respacing: see `space_timesteps`.

    Returns:
        (steps + 1,) float64, descending, the last one 0: what `sampling.inpaint` takes as `sigmas`.

    Raises:
        ValueError: see `space_timesteps`.
    """
    sigmas = _all_sigmas(config)[space_timesteps(config.diffusion_steps, respacing)].flip(0)
    sigmas = sigmas[sigmas <= config.sigma_max]
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _all_sigmas(config: ModelConfig) -> Tensor:
    alphas_cumprod = torch.cumprod(1 - noise_schedule(config.noise_schedule, config.diffusion_steps), dim=0)
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def _every_kth(total: int, count: int) -> list[int]:
    for stride in range(1, total):
        if len(range(0, total, stride)) == count:
            return list(range(0, total, stride))
    raise ValueError(f"respacing 'ddim{count}' is impossible: no whole stride takes {count} of {total} timesteps")
