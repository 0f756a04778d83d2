"""Eq. 9 of the paper: one normalized gradient step on the sampler's next state.

    x_next <- x_next - alpha * s(sigma_next) * g_hat,      g_hat = grad_x L(x0_hat(x)) / ||grad||

The paper's states have unit variance. Where a state is `a*x0 + b*eps`, s = sqrt(a^2 + b^2) is its scale in those units,
so that one `alpha` means the same in every parametrization:

    unit variance   a = sqrt(alpha_bar), b = sqrt(1 - alpha_bar)   s = 1
    VE              a = 1,               b = sigma                 s = sqrt(1 + sigma^2)     (eps, v, EDM models)
    flow            a = 1 - sigma,       b = sigma                 s = sqrt((1 - sigma)^2 + sigma^2)

Normalization is per sample: images of one batch never influence each other.

A fixed alpha acts at every guided step, so twice the steps push twice as far. `strength` sets alpha by how much of the
way from noise to image a step goes instead. In the angle theta = atan(b / a), which runs from pi/2 (noise) to 0 (image)
for every model, alpha = strength * RATE * (theta - theta_next), up to a limit that matters to runs of very few steps:
the sum over a run is that of the angles, however many steps, and however spaced, it has. Once there is less noise than
image (theta_next < pi/4) it shrinks with what noise is left, tan(theta_next), because what the last steps push into the
image no later step makes natural again: guided to its end, a run would end in visible seams.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .settings import NORMALIZATIONS, GuidanceSettings, check_choice

PARAMETRIZATIONS = ("unit", "ve", "flow")

# Chosen by measurement, docs/quality.md.
RATE = 1.6  # alpha per radian at strength 1: 0.08 at 30 steps of equal angle
MOST = 0.16  # largest alpha at strength 1: in runs of fewer than 15 steps a step that far already overshoots

Level = tuple[float, float]
"""(a, b) of a state `a*x0 + b*eps`."""


def state_scale(sigma: Tensor | float, parametrization: str = "ve") -> Tensor:
    """s(sigma), the standard deviation of a state at noise level sigma for unit-variance data. Shape of sigma."""
    check_choice("parametrization", parametrization, PARAMETRIZATIONS)
    sigma = torch.as_tensor(sigma)
    if parametrization == "unit":
        return torch.ones_like(sigma)
    a = 1 if parametrization == "ve" else 1 - sigma
    return (a * a + sigma * sigma) ** 0.5


def normalize(gradient: Tensor, normalization: str = "rms") -> tuple[Tensor, Tensor]:
    """g_hat of eq. 9, per sample.

    A sample whose gradient is zero or not finite gets g_hat = 0; only the latter counts as unusable.

    Args:
        gradient: (B, ...).
        normalization: "rms": RMS 1 over each sample; "l2": L2 norm 1 over each sample, eq. 9 to the letter.

    Returns:
        g_hat (B, ...) and which samples are usable, (B,) bool.
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
    flat = gradient.detach().float().flatten(1)
    finite = flat.isfinite().all(1)
    flat = torch.where(finite[:, None], flat, 0.0)
    peak = flat.abs().amax(1, keepdim=True)  # scale first: squares of tiny or huge gradients would leave float32
    flat = flat / torch.where(peak == 0, 1.0, peak)
    norm = flat.square().mean(1, keepdim=True).sqrt() if normalization == "rms" else flat.norm(dim=1, keepdim=True)
    g_hat = flat / torch.where(norm == 0, 1.0, norm)
    return g_hat.reshape(gradient.shape).to(gradient.dtype), finite


def step_size(settings: GuidanceSettings, level: Level, level_next: Level) -> float:
    """alpha of eq. 9 for the step from one noise level to the next."""
    if settings.alpha is not None:
        return settings.alpha
    a_next, b_next = level_next
    angle = math.atan2(level[1], level[0]) - math.atan2(b_next, a_next)
    remaining = 1.0 if b_next >= a_next else b_next / a_next
    return settings.strength * min(RATE * max(angle, 0.0), MOST) * remaining  # a step back towards noise: no push


def displacement(gradient: Tensor, alpha: float, scale: float, normalization: str = "rms") -> tuple[Tensor, Tensor]:
    """What eq. 9 adds to the next state.

    Args:
        gradient: (B, ...), of each sample's loss in the current state; any positive factor on it is irrelevant.
        alpha: See `step_size`.
        scale: s(sigma_next), see `state_scale`.
        normalization: See `normalize`.

    Returns:
        The displacement (B, ...) and which samples were usable, (B,) bool.
    """
    g_hat, finite = normalize(gradient, normalization)
    return -(alpha * scale) * g_hat, finite
