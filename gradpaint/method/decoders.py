"""How the loss at the border sees a latent: as an image, through a decoder that can be differentiated.

A decoder is any callable (B, C, ..., h, w) -> (B, 3, ..., H, W), images in [-1, 1]. The mask and its border are taken
at the image's resolution, which may be finer than the latent's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import border_band, check_shapes

Decoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class View:
    """What a loss term sees where it looks at a decoded image instead of x0_hat itself. Made by `view`.

    Attributes:
        decode: The decoder.
        y: (B, 3, ..., H, W), the given image, decoded.
        mask, border: Broadcast to y.
    """

    decode: Decoder
    y: Tensor
    mask: Tensor
    border: Tensor

    def sample(self, i: int) -> View:
        """The i-th sample's own view, a batch of one."""
        y, mask, border = (t if len(t) == 1 else t[i : i + 1] for t in (self.y, self.mask, self.border))
        return View(self.decode, y, mask, border)

    def with_mask(self, mask: Tensor, border_width: int = 1) -> View:
        """The same given image with another mask, (B or 1, 1 or C, ..., h, w), at the latent's resolution."""
        return _with_mask(self.decode, self.y, enlarged_mask(mask, self.y.shape[-2:]), border_width)


def view(
    decode: Decoder,
    y: Tensor,
    mask: Tensor,
    border_width: int = 1,
    fine_mask: Tensor | Callable[[torch.Size], Tensor] | None = None,
) -> View:
    """Decode the given latent, once, and bring the mask to the decoded image's size.

    Args:
        decode: The decoder.
        y: (B, C, ..., h, w). Only the known pixels of decode(y) enter a loss; those next to the hole depend on the
            latent under it by the decoder's reach, so encode an image there rather than zeros.
        mask: (B or 1, 1 or C, ..., h, w), 1 = repaint; each cell's weight holds for all of its pixels.
        border_width: Of the border, in pixels of the decoded image.
        fine_mask: (B or 1, 1, ..., H, W), the mask at the image's resolution, where there is one; or a function that
            makes it for an image of the given shape.

    Raises:
        ValueError: The decoder's answer or fine_mask does not fit.
    """
    with torch.no_grad():
        image = decode(y).float()
    if image.ndim != y.ndim or image.shape[:2] != (len(y), 3) or image.shape[2:-2] != y.shape[2:-2]:
        raise ValueError(
            f"the decoder turned a latent of shape {tuple(y.shape)} into {tuple(image.shape)}, but the "
            "loss at the border needs one RGB image for each: (batch, 3, ..., height, width)"
        )
    fine_mask = fine_mask(image.shape) if callable(fine_mask) else fine_mask
    at_size = enlarged_mask(mask, image.shape[-2:]) if fine_mask is None else fine_mask.to(image)
    return _with_mask(decode, image, at_size, border_width)


def _with_mask(decode: Decoder, image: Tensor, mask: Tensor, border_width: int) -> View:
    check_shapes(image, image, mask)
    return View(decode, image, mask, border_band(mask, border_width))


def enlarged_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, ..., h, w) -> (B, 1, ..., H, W): each cell's weight for all of its pixels; the largest of the channels."""
    mask = mask.amax(1, keepdim=True)
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    return F.interpolate(flat, tuple(size), mode="nearest").reshape(*mask.shape[:-2], *size)


class LinearRGB:
    """A latent's linear projection to colors, (B, C, ..., h, w) -> (B, 3, ..., h, w).

    factors: (C, 3); bias: (3,) or None; reshape: applied to the latent first (FLUX.2 packs 2 x 2 cells into channels).
    """

    def __init__(self, factors: Tensor, bias: Tensor | None = None, reshape: Callable[[Tensor], Tensor] | None = None):
        if factors.ndim != 2 or factors.shape[1] != 3:
            raise ValueError(f"factors has shape {tuple(factors.shape)}, but must be (channels, 3)")
        self.factors, self.reshape = factors, reshape
        self.bias = torch.zeros(3) if bias is None else bias

    def __call__(self, latent: Tensor) -> Tensor:
        latent = latent if self.reshape is None else self.reshape(latent)
        if latent.shape[1] != len(self.factors):
            raise ValueError(
                f"the latent has {latent.shape[1]} channels, the projection to colors is for {len(self.factors)}"
            )
        return F.linear(latent.movedim(1, -1), self.factors.to(latent).T, self.bias.to(latent)).movedim(-1, 1)


def fit_linear_rgb(latents: Tensor, images: Tensor) -> LinearRGB:
    """The projection with the least squared error: latents (B, C, h, w), images (B, 3, H, W), averaged over cells."""
    small = F.adaptive_avg_pool2d(images.double(), (latents.shape[-2], latents.shape[-1]))
    cells = latents.double().movedim(1, -1).flatten(0, -2)
    rows = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)
    solution = torch.linalg.lstsq(rows, small.movedim(1, -1).flatten(0, -2)).solution.float()
    return LinearRGB(solution[:-1], solution[-1])
