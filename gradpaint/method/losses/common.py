"""What the loss terms share: image gradients (eq. 7), the border of a mask, weighted means, checks of shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..settings import AlignmentSettings


class BorderLoss(NamedTuple):
    """A loss at the border of the hole. Each one's file has it under the name LOSS.

    Attributes:
        function: (x0_hat, y, mask, border band or None, settings) -> (B,).
        title: What reports and pictures call it.
        mse: The masked MSE that goes with it, (x0_hat, y, mask) -> (B,): a weight belongs to both scales.
    """

    function: Callable[[Tensor, Tensor, Tensor, Tensor | None, AlignmentSettings], Tensor]
    title: str
    mse: Callable[[Tensor, Tensor, Tensor], Tensor]


def image_gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences along W and along H, zero in the last column and row. Two tensors shaped like x."""
    return (F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1)), F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1)))


def normalized_gradients(x: Tensor, softness: float = 0.0) -> tuple[Tensor, Tensor]:
    """Eq. 7: image gradients of unit length, (Dx, Dy), exactly zero where the gradient is zero.

    The derivative is finite everywhere; at a zero gradient with softness 0, where the direction is undefined, it is
    zero.

    Args:
        x: (..., H, W).
        softness: Gradients are divided by sqrt(|g|^2 + softness^2), in units of x; 0 is the equation to the letter.

    Returns:
        Two tensors shaped like x.
    """
    dx, dy = image_gradients(x)
    length_sq = dx * dx + dy * dy + softness**2
    flat = length_sq == 0
    scale = torch.where(flat, 0.0, torch.where(flat, 1.0, length_sq).rsqrt())  # double where: no inf * 0 in backward
    return dx * scale, dy * scale


def border_band(mask: Tensor, width: int = 1) -> Tensor:
    """How much each pixel belongs to the border of the hole: the mask's morphological gradient, in [0, 1].

    For a binary mask it is 1 within `width` pixels of the edge on either side (square neighborhood) and 0 elsewhere;
    a soft mask gives soft weights. The image's own edge is no border.

    Args:
        mask: (..., H, W).
        width: Pixels on each side.

    Returns:
        A tensor shaped like mask.
    """
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    size = 2 * width + 1
    widest = F.max_pool2d(flat, size, stride=1, padding=width)
    narrowest = -F.max_pool2d(-flat, size, stride=1, padding=width)
    return (widest - narrowest).reshape(mask.shape)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` (B, ...) under `weight` (broadcast to it), per sample: (B,). Zero where all weights are zero."""
    weight = weight.expand_as(values)
    total = weight.flatten(1).sum(1)
    return (values * weight).flatten(1).sum(1) / torch.where(total == 0, 1.0, total)


def per_pixel(values: Tensor) -> Tensor:
    """Sum of (B, C, ..., H, W) over channels, mean over pixels and frames, per sample: (B,)."""
    return values.flatten(1).sum(1) / (values[0, 0].numel() if values.ndim > 3 else values.shape[-1])


def check_shapes(x0_hat: Tensor, y: Tensor, mask: Tensor) -> None:
    """Raise ValueError naming both shapes if y or mask can't be used with x0_hat."""
    if x0_hat.ndim < 3:
        raise ValueError(
            f"x0_hat has shape {tuple(x0_hat.shape)}, but must be (B, C, H, W); videos have more "
            "dimensions, packed latents (B, C, N) one less"
        )
    if x0_hat.shape != y.shape:
        raise ValueError(f"y has shape {tuple(y.shape)}, but must have x0_hat's shape {tuple(x0_hat.shape)}")
    fits = mask.ndim == x0_hat.ndim and all(m in (1, n) for m, n in zip(mask.shape, x0_hat.shape))
    if not fits or mask.shape[-2:] != x0_hat.shape[-2:]:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but must broadcast to x0_hat's shape "
            f"{tuple(x0_hat.shape)} with the same height and width"
        )
