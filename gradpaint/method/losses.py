"""The losses of GradPaint, eqs. 5-8, per sample: (B, C, ..., H, W) -> (B,).

`mask` is 1 where the image is repainted and 0 where it is known (the paper's m is `1 - mask`); it broadcasts to the
images, and grey values are weights. Both losses are means, not sums, so that `lambda_al` does not depend on the size
of the image or of the hole.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .known_region import combine_image


class LossTerms(NamedTuple):
    """`total` = `mse` + lambda_al * `alignment` (eq. 8). Each (B,)."""

    total: Tensor
    mse: Tensor
    alignment: Tensor


def masked_mse(x0_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Eq. 5: mean squared error over the known pixels. A sample without known pixels has loss 0."""
    return weighted_mean((x0_hat - y) ** 2, 1 - mask)


def image_gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences along W and along H, zero in the last column and row. Two tensors shaped like x."""
    return (F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1)), F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1)))


def normalised_gradients(x: Tensor, softness: float = 0.0) -> tuple[Tensor, Tensor]:
    """Eq. 7: image gradients of length one (direction only), exactly zero where the gradient is zero.

    softness: gradients are divided by sqrt(|g|^2 + softness^2); 0 is the literal equation. The derivative is finite
    everywhere; at a zero gradient with softness 0, where the direction is undefined, it is zero.
    """
    dx, dy = image_gradients(x)
    length_sq = dx * dx + dy * dy + softness**2
    flat = length_sq == 0
    scale = torch.where(flat, 0.0, torch.where(flat, 1.0, length_sq).rsqrt())  # double where: no inf * 0 in backward
    return dx * scale, dy * scale


def border_band(mask: Tensor, width: int = 1) -> Tensor:
    """How much each pixel belongs to the border of the hole: morphological gradient of the mask, (.., H, W) in [0, 1].

    For a binary mask it is 1 within `width` pixels of the edge on either side (square neighbourhood) and 0 elsewhere;
    a soft mask gives soft weights. The image's own edge is no border.
    """
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    size = 2 * width + 1
    widest = F.max_pool2d(flat, size, stride=1, padding=width)
    narrowest = -F.max_pool2d(-flat, size, stride=1, padding=width)
    return (widest - narrowest).reshape(mask.shape)


def alignment_loss(
    x0_hat: Tensor,
    y: Tensor,
    mask: Tensor,
    *,
    border_width: int = 1,
    softness: float = 0.0,
    border: Tensor | None = None,
) -> Tensor:
    """Eq. 6: do the combined image's edges run on across the mask border as the model drew them?

    Compares the normalised image gradients (eq. 7) of the combined image with those of x0_hat, squared, mean over the
    border band and over channels. border: `border_band(mask, border_width)` if the caller keeps it.
    """
    border = border_band(mask, border_width) if border is None else border
    comb_dx, comb_dy = normalised_gradients(combine_image(x0_hat, y, mask), softness)
    hat_dx, hat_dy = normalised_gradients(x0_hat, softness)
    return weighted_mean((comb_dx - hat_dx) ** 2 + (comb_dy - hat_dy) ** 2, border)


def total_loss(
    x0_hat: Tensor,
    y: Tensor,
    mask: Tensor,
    lambda_al: float = 0.0,
    *,
    border_width: int = 1,
    softness: float = 0.0,
    border: Tensor | None = None,
) -> LossTerms:
    """Eq. 8: masked MSE + lambda_al * alignment loss. With lambda_al = 0 the alignment term is not computed (zeros)."""
    check_shapes(x0_hat, y, mask)
    mse = masked_mse(x0_hat, y, mask)
    if lambda_al == 0:
        return LossTerms(mse, mse, torch.zeros_like(mse))
    alignment = alignment_loss(x0_hat, y, mask, border_width=border_width, softness=softness, border=border)
    return LossTerms(mse + lambda_al * alignment, mse, alignment)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` (B, ...) under `weight` (broadcast to it), per sample: (B,). Zero where all weights are zero."""
    weight = weight.expand_as(values)
    total = weight.flatten(1).sum(1)
    return (values * weight).flatten(1).sum(1) / torch.where(total == 0, 1.0, total)


def check_shapes(x0_hat: Tensor, y: Tensor, mask: Tensor) -> None:
    """ValueError naming both shapes if y or mask can't be used with x0_hat."""
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
