"""Bounds for the tables: answers that need no diffusion model.

COPY is the true image itself, the floor of every metric; latent COPY is the true image encoded and decoded by a latent
model's codec, with nothing pasted back, as in the paper; GREYFILL paints the hole gray, what a method gets for nothing.
The first two look at what is under the hole, which no method may.
"""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from ...method.losses import check_shapes
from ..inpaint import InpaintResult, finished


def copy(y: Tensor, mask: Tensor, image: Tensor) -> InpaintResult:
    """The true images, (B, C, H, W) like y, where mask is not 0."""
    _check(y, mask, image)
    return _result(image.to(y), y, mask)


def latent_copy(y: Tensor, mask: Tensor, image: Tensor, codec: tuple[Callable, Callable]) -> InpaintResult:
    """The true images encoded and decoded, known pixels too. codec: (encode, decode), images to latents and back."""
    _check(y, mask, image)
    if codec is None:
        raise ValueError("codec is None, but latent_copy needs (encode, decode) of a latent model")
    encode, decode = codec
    with torch.no_grad():
        decoded = decode(encode(image))
    if decoded.shape != y.shape:
        raise ValueError(
            f"codec gives images of shape {tuple(decoded.shape)}, but must give y's shape {tuple(y.shape)}"
        )
    return InpaintResult(image=decoded.to(y))


def greyfill(y: Tensor, mask: Tensor) -> InpaintResult:
    """0, the middle of the data range, where mask is 1."""
    check_shapes(y, y, mask)
    return _result(torch.zeros_like(y), y, mask)


def _check(y: Tensor, mask: Tensor, image: Tensor | None) -> None:
    check_shapes(y, y, mask)
    if image is None:
        raise ValueError("image is None, but this oracle needs the true images")
    if image.shape != y.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, but must have y's shape {tuple(y.shape)}")


def _result(inside: Tensor, y: Tensor, mask: Tensor) -> InpaintResult:
    mask = mask.to(y)
    mixed = mask * inside + (1 - mask) * y
    return InpaintResult(image=finished(mixed.where(mask < 1, inside), y, mask, None))
