"""Inpainting of the user's own tensors at any size: what `gradpaint inpaint` does between reading and writing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..method.settings import GuidanceSettings
from .methods import get_method
from .run import InpaintResult
from .sigmas import run_sigmas


def reflect_pad(tensor: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) enlarged at the right and bottom by mirroring, to the next multiple of `multiple`."""
    height, width = tensor.shape[2:]
    rows, columns = -height % multiple, -width % multiple
    padded = np.pad(tensor.numpy(), ((0, 0), (0, 0), (0, rows), (0, columns)), mode="symmetric")
    return torch.from_numpy(padded)


def size_warning(height: int, width: int, trained: int) -> str | None:
    """A sentence if height x width is far from the size that the model was trained at, else None."""
    side = (height * width) ** 0.5
    if 0.7 <= side / trained <= 1.5:
        return None
    return (
        f"the image is {width}x{height} pixels, but the model was trained at {trained}x{trained}: "
        "expect repeated or missing structure. Resize the image near to that for better results"
    )


def inpaint_image(
    denoiser: Any,
    image: Tensor,
    mask: Tensor,
    *,
    steps: int,
    seed: int = 0,
    method: str = "gradpaint",
    sampler: str = "ddim",
    settings: GuidanceSettings | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
    **options: Any,
) -> InpaintResult:
    """Repaint one image of any size with the library's sampler.

    Args:
        denoiser: With `size_multiple` and a table of `sigmas`, see `guided_diffusion.load_denoiser`.
        image: (1, 3, H, W) in [-1, 1].
        mask: (1, 1, H, W), 1 = repaint. Both are mirrored up to the multiple that the model takes.
        steps, seed, sampler, settings, progress: See `inpaint`.
        method, options: See `sampling.methods`.
        device: Where it runs.

    Returns:
        A result on the CPU, cut back to the image's size with all that its record keeps.
    """
    height, width = image.shape[2:]
    y, hole = (reflect_pad(tensor, denoiser.size_multiple).to(device) for tensor in (image, mask))
    result = get_method(method).run(
        denoiser,
        y,
        hole,
        sigmas=run_sigmas(denoiser, steps, sampler),
        seed=seed,
        sampler=sampler,
        settings=settings,
        progress=progress,
        image=y,
        **options,
    )

    def cut(t: Tensor) -> Tensor:
        return t[..., :height, :width].cpu()

    result.image = cut(result.image)
    for step in result.record:
        step.x0_hat = None if step.x0_hat is None else cut(step.x0_hat)
        step.maps = {name: cut(values) for name, values in step.maps.items()}
    return result
