"""DPS: Chung, Kim, Mccann, Klasky, Ye, "Diffusion Posterior Sampling for General Noisy Inverse Problems" (2023)."""

from __future__ import annotations

from typing import Callable

from torch import Tensor
from tqdm.auto import tqdm

from ...method.known_region import combine_image
from ...method.settings import check_number
from ..guide import Denoiser
from ..inpaint import InpaintResult, StepRecord, finished, prepare
from .defaults import DEFAULT_ZETA
from .known_error import ErrorDescent


def dps(
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
    zeta: float = DEFAULT_ZETA,
    progress: bool = True,
    callback: Callable[[StepRecord], None] | None = None,
) -> InpaintResult:
    """x = x' - zeta * dL/dz. Arguments as in `samplers.inpaint`.

    x' is the sampler's step on x0_hat alone, L the length of the known part's error (see `known_error`). Nothing is
    projected: the known pixels are pasted into the result at the end only, once, for a fair comparison. zeta: 0.5 in
    the paper's inpainting, with 1,000 steps. Every step is one evaluation with its backward pass.
    """
    check_number("zeta", zeta, 0.0, 1e3)
    y, mask, levels, x, step_function, draw = prepare(y, mask, sigmas, noise, seed, sampler, full_noise)
    descend = ErrorDescent(denoiser, y, mask, levels, zeta)
    result = InpaintResult(image=y)
    for i in tqdm(range(len(levels) - 1), desc="dps", disable=not progress):
        x0_hat, nudge, record = descend(x, i)
        x0_hat = x0_hat if clip is None else x0_hat.clamp(*clip)
        x = step_function(x, x0_hat, levels[i], levels[i + 1], draw) + nudge
        result.evaluations += 1
        result.record.append(record)
        if callback is not None:
            callback(record)
    result.backwards, result.skipped_nudges = descend.backwards, descend.skipped
    result.image = finished(combine_image(x, y, mask), y, mask, clip)
    return result
