"""MCG: Chung, Sim, Ryu, Ye, "Improving Diffusion Models for Inverse Problems using Manifold Constraints" (2022)."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...method.known_region import combine_noisy
from ...method.settings import check_number
from ..guide import Denoiser
from ..inpaint import InpaintResult, StepRecord, finished, prepare
from .defaults import DEFAULT_STEP
from .known_error import ErrorDescent


def mcg(
    denoiser: Denoiser,
    y: Tensor,
    mask: Tensor,
    *,
    sigmas: Tensor,
    noise: Tensor | None = None,
    seed: int = 0,
    sampler: str = "ddpm",
    full_noise: bool = True,
    clip: tuple[float, float] | None = (-1.0, 1.0),
    step: float = DEFAULT_STEP,
    progress: bool = True,
    callback: Callable[[StepRecord], None] | None = None,
) -> InpaintResult:
    """x = (1-m) * (x' - step * dL/dz) + m * q(y, t), m = 1 where known. Arguments as in `samplers.inpaint`.

    x' is the sampler's step on x0_hat alone, L the length of the known part's error (see `known_error`) and q(y, t)
    the known image with fresh noise of x''s own level. step: the paper's alpha as a multiple of dL/dz, 1 in its
    inpainting. The paper runs 1,000 steps. Every step is one evaluation with its backward pass.
    """
    check_number("step", step, 0.0, 1e3)
    y, mask, levels, x, step_function, draw = prepare(y, mask, sigmas, noise, seed, sampler, full_noise)
    descend = ErrorDescent(denoiser, y, mask, levels, step)
    result = InpaintResult(image=y)
    for i in tqdm(range(len(levels) - 1), desc="mcg", disable=not progress):
        sigma, sigma_next = levels[i], levels[i + 1]
        x0_hat, nudge, record = descend(x, i)
        x0_hat = x0_hat if clip is None else x0_hat.clamp(*clip)
        x = step_function(x, x0_hat, sigma, sigma_next, draw) + nudge
        x = combine_noisy(x, y, mask, draw() if sigma_next > 0 else torch.zeros_like(x), 1.0, sigma_next)
        result.evaluations += 1
        result.record.append(record)
        if callback is not None:
            callback(record)
    result.backwards, result.skipped_nudges = descend.backwards, descend.skipped
    result.image = finished(x, y, mask, clip)
    return result
