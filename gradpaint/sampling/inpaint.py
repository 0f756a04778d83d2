"""Host-free DDPM and DDIM samplers with the paper's inpainting methods.

Everything is written in VE form, `x = x0 + sigma*eps`; the unit-variance state of the paper is x / sqrt(1 + sigma^2).
A denoiser is any callable `denoiser(x, sigma) -> x0_hat` that is differentiable in x.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Callable, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..method.adaptive_stop import StopReport
from ..method.decoders import View
from ..method.known_region import combine_image, combine_noisy
from ..method.losses import check_shapes
from ..method.settings import GuidanceSettings, check_choice
from ..method.term_maps import TermMaps
from .guide import Denoiser, Guide

METHODS = ("gradpaint", "combine_image", "combine_noisy")
SAMPLERS = ("ddpm", "ddim")


@dataclass
class StepRecord:
    """What one step did. Loss terms and gradient RMS are (B,) on the CPU; NaN where no gradient was taken.

    guided: a gradient was taken and the next state nudged; kept: nudged in the last such step's direction.
    """

    step: int
    sigma: float
    guided: bool
    total: Tensor
    mse: Tensor
    alignment: Tensor
    grad_rms: Tensor
    x0_hat: Tensor | None = None
    kept: bool = False
    maps: TermMaps | None = None


@dataclass
class InpaintResult:
    """image (B, C, H, W) with the known pixels exactly y's; one record per step; model evaluations and backward
    passes through the model.

    skipped_nudges counts samples whose gradient was not finite and whose nudge was therefore left out. stop: how
    guidance ended.
    """

    image: Tensor
    record: list[StepRecord] = field(default_factory=list)
    evaluations: int = 0
    backwards: int = 0
    skipped_nudges: int = 0
    stop: StopReport = field(default_factory=StopReport)


def ddim_step(x: Tensor, x0_hat: Tensor, sigma: float, sigma_next: float, noise: Callable[[], Tensor]) -> Tensor:
    """Deterministic DDIM (Song et al., eq. 12 with eta = 0), which in VE form is an Euler step."""
    return x0_hat + (x - x0_hat) * (sigma_next / sigma)


def ddpm_step(x: Tensor, x0_hat: Tensor, sigma: float, sigma_next: float, noise: Callable[[], Tensor]) -> Tensor:
    """Ancestral sampling (Ho et al.; eq. 2 of the paper): draw from q(x_next | x, x0_hat)."""
    if sigma_next == 0:
        return x0_hat
    keep = (sigma_next / sigma) ** 2
    return x0_hat + (x - x0_hat) * keep + noise() * (sigma_next * (1 - keep) ** 0.5)


STEPS = {"ddim": ddim_step, "ddpm": ddpm_step}


def initial_state(noise: Tensor, sigma: float, y: Tensor, mask: Tensor, full_noise: bool = True) -> Tensor:
    """First state of a run: noise at level sigma over the known image, with nothing in the hole. (B, C, H, W).

    full_noise: the run starts at the model's highest level, where the state has the spread sqrt(1 + sigma^2) of a
    noised image of unit variance (the host's rule at denoise 1); otherwise noise is scaled by sigma.
    """
    return noise * ((1 + sigma**2) ** 0.5 if full_noise else sigma) + y * (1 - mask)


class Start(NamedTuple):
    """Where every method starts from: y blanked under the hole, mask like y, the noise levels, the first state, the
    sampler's step and a function that draws the noise of the steps."""

    y: Tensor
    mask: Tensor
    levels: list[float]
    x: Tensor
    step: Callable[..., Tensor]
    draw: Callable[[], Tensor]


def prepare(
    y: Tensor, mask: Tensor, sigmas: Tensor, noise: Tensor | None, seed: int, sampler: str, full_noise: bool
) -> Start:
    """Check `inpaint`'s arguments of these names and start from them. ValueError naming the one that is wrong."""
    check_choice("sampler", sampler, SAMPLERS)
    check_shapes(y, y, mask)
    levels = _checked_levels(sigmas)
    mask = mask.to(y)
    y = y.where(mask < 1, torch.zeros_like(y))  # nothing from under the hole can leak
    # As the host does: drawn on the CPU, the steps' noise with the next seed, so as not to repeat the first state's.
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(y.shape, generator=generator).to(y) if noise is None else noise.to(y)
    generator.manual_seed((seed + 1) % 2**64)
    if first.shape != y.shape:
        raise ValueError(f"noise has shape {tuple(first.shape)}, but must have y's shape {tuple(y.shape)}")
    x = initial_state(first, levels[0], y, mask, full_noise)
    return Start(y, mask, levels, x, STEPS[sampler], lambda: torch.randn(y.shape, generator=generator).to(y))


def finished(x: Tensor, y: Tensor, mask: Tensor, clip: tuple[float, float] | None) -> Tensor:
    """The result from a run's last state: clipped, the known pixels exactly y's. Grey parts have been mixed already."""
    return torch.where(mask > 0, x if clip is None else x.clamp(*clip), y)


def inpaint(
    denoiser: Denoiser,
    y: Tensor,
    mask: Tensor,
    *,
    sigmas: Tensor,
    noise: Tensor | None = None,
    seed: int = 0,
    method: str = "gradpaint",
    sampler: str = "ddim",
    settings: GuidanceSettings | None = None,
    full_noise: bool = True,
    clip: tuple[float, float] | None = (-1.0, 1.0),
    progress: bool = True,
    keep_x0: bool | Collection[int] = False,
    callback: Callable[[StepRecord], None] | None = None,
    view: View | None = None,
    keep_gradients: bool | Collection[int] = False,
) -> InpaintResult:
    """Repaint y's hole.

    denoiser   (x, sigma) -> x0_hat, x in VE form (B, C, H, W), sigma 0-dim. settings.gradient "cond" needs its
               `through_cond` (see classifier_free.ClassifierFree); a denoiser without one has a single branch.
    y          (B, C, H, W), the image; what is under the hole is never looked at.
    mask       (B or 1, 1 or C, H, W), 1 = repaint, 0 = known (the paper's m is 1 - mask); grey values mix.
    sigmas     (steps + 1,) descending noise levels ending in 0, e.g. `schedule.spaced_sigmas(denoiser.sigmas, 50)`.
    noise      (B, C, H, W) standard normal for the first state; by default drawn on the CPU from `seed`.
    seed       of the first noise; the noise that ddpm adds comes from seed + 1.
    method     "gradpaint": eqs. 3, 5-9; "combine_image": eq. 3 alone; "combine_noisy": eq. 4 alone.
    clip       range that x0_hat is clipped to before the step; None for latent models.
    keep_x0    put x0_hat (before compositing) of every step (True) or of these into the record.
    callback   called with each step's record; may raise to stop the run.
    view       for models of latents: the decoded image that the alignment loss looks at, see `decoders.view`; without
               one it looks at the model's own images.
    keep_gradients  put the gradient maps of each loss term (Fig. 3a) into the record, of every guided step (True) or of
               those of these steps; one more backward pass each, counted among the result's.
    """
    settings = GuidanceSettings() if settings is None else settings
    check_choice("method", method, METHODS)
    y, mask, levels, x, step_function, draw = prepare(y, mask, sigmas, noise, seed, sampler, full_noise)

    steps = len(levels) - 1
    keep_x0, kept = (range(steps) if keep is True else keep or () for keep in (keep_x0, keep_gradients))
    guide = Guide(settings if method == "gradpaint" else None, y, mask, steps, view, kept)
    result = InpaintResult(image=y)
    for i in tqdm(range(steps), desc=method, disable=not progress):
        sigma, sigma_next = levels[i], levels[i + 1]
        x0_hat, found = guide.evaluate(denoiser, x, sigma, i)
        values = torch.full((4, len(y)), float("nan")) if found is None else (*found.terms, found.rms)
        record = StepRecord(i, sigma, guide.guided[i], *(value.cpu() for value in values), kept=guide.kept[i])
        result.evaluations += 1
        record.x0_hat = x0_hat.cpu() if i in keep_x0 else None
        record.maps = guide.maps.get(i)
        x0_hat = x0_hat if clip is None else x0_hat.clamp(*clip)
        if method != "combine_noisy":
            x0_hat = combine_image(x0_hat, y, mask)
        x = step_function(x, x0_hat, sigma, sigma_next, draw)
        nudge = guide.nudge(sigma, sigma_next, i)
        if nudge is not None:
            x = x + nudge
        if method == "combine_noisy":
            x = combine_noisy(x, y, mask, draw() if sigma_next > 0 else torch.zeros_like(x), 1.0, sigma_next)
        result.record.append(record)
        if callback is not None:
            callback(record)
    result.backwards, result.skipped_nudges = guide.backwards, guide.skipped_nudges
    result.stop = guide.stop_report()
    result.image = finished(x, y, mask, clip)
    return result


def _checked_levels(sigmas: Tensor) -> list[float]:
    levels = torch.as_tensor(sigmas, dtype=torch.float64).tolist()
    descending = all(high > low for high, low in zip(levels, levels[1:]))
    if len(levels) < 2 or not descending or levels[-1] < 0:
        raise ValueError(f"sigmas is {levels}, but must hold at least two noise levels, descending, the last one >= 0")
    return levels
