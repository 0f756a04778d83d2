"""RePaint: Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models" (2022)."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...method.known_region import combine_noisy
from ...method.settings import check_number
from ..guide import Denoiser
from ..inpaint import InpaintResult, StepRecord, finished, prepare
from .defaults import DEFAULT_JUMP_LENGTH, DEFAULT_RESAMPLINGS


def repaint_path(
    steps: int, resamplings: int = DEFAULT_RESAMPLINGS, jump_length: int = DEFAULT_JUMP_LENGTH
) -> list[int]:
    """The noise levels that a run visits, as indices into its steps + 1 levels, from 0 (noise) to `steps` (clean).

    A step down goes to the next index, a jump back goes `jump_length` indices up the noise at once. The paper's
    schedule: the last noisy level and every `jump_length`-th one before it are each returned to `resamplings` - 1
    times, as long as there is room to jump back. Where jump_length divides the steps that is
    steps + (resamplings - 1) * (steps - jump_length) model evaluations: 2,410 for 250, 10, 10. A run of jump_length
    steps or fewer has no such level; it jumps from its last noisy level to its start.
    """
    check_number("steps", steps, 1, 10_000, integer=True)
    check_number("resamplings", resamplings, 1, 1000, integer=True)
    check_number("jump_length", jump_length, 1, 10_000, integer=True)
    jump = min(jump_length, steps - 1)
    left = {index: resamplings - 1 for index in range(steps - 1, jump - 1, -jump)} if jump else {}
    path = [0]
    while path[-1] < steps:
        path.append(path[-1] + 1)
        if left.get(path[-1], 0) > 0:
            left[path[-1]] -= 1
            path.append(path[-1] - jump)
    return path


def repaint(
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
    resamplings: int = DEFAULT_RESAMPLINGS,
    jump_length: int = DEFAULT_JUMP_LENGTH,
    progress: bool = True,
    callback: Callable[[StepRecord], None] | None = None,
) -> InpaintResult:
    """Resampling: after each step the known part is replaced by the noised image (eq. 4); every few steps the state is
    noised again, q(x_t | x_(t-j)), and denoised again, so that the hole can take notice of the known part.

    Arguments as in `samplers.inpaint`, and those of `repaint_path`. One record per model evaluation.
    """
    y, mask, levels, x, step_function, draw = prepare(y, mask, sigmas, noise, seed, sampler, full_noise)
    path = repaint_path(len(levels) - 1, resamplings, jump_length)
    result = InpaintResult(image=y)
    none = torch.full((len(y),), float("nan"))
    for here, there in zip(tqdm(path[:-1], desc="repaint", disable=not progress), path[1:]):
        sigma, sigma_next = levels[here], levels[there]
        if there < here:
            x = x + (sigma_next**2 - sigma**2) ** 0.5 * draw()
            continue
        with torch.no_grad():
            x0_hat = denoiser(x, torch.tensor(sigma, dtype=x.dtype, device=x.device))
        x0_hat = x0_hat if clip is None else x0_hat.clamp(*clip)
        x = step_function(x, x0_hat, sigma, sigma_next, draw)
        x = combine_noisy(x, y, mask, draw() if sigma_next > 0 else torch.zeros_like(x), 1.0, sigma_next)
        record = StepRecord(step=here, sigma=sigma, guided=False, total=none, mse=none, alignment=none, grad_rms=none)
        result.evaluations += 1
        result.record.append(record)
        if callback is not None:
            callback(record)
    result.image = finished(x, y, mask, clip)
    return result
