"""Bounds for the tables: answers that need no diffusion model.

COPY is the true image itself, the floor of every metric; latent COPY is the true image encoded and decoded by a latent
model's codec, the best that such a model can reach; GREYFILL paints the hole gray, what a method gets for nothing. The
first two look at what is under the hole, which no method may.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...method.known_region import combine_image
from ...method.losses import check_shapes
from ..run import InpaintResult

Codec = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""(encode, decode): images to latents and back."""


def copy(y: Tensor, mask: Tensor, image: Tensor | None = None, codec: Codec | None = None) -> InpaintResult:
    """The true images, (B, C, H, W) like y, in the hole."""
    true = _checked(y, mask, image)
    return _pasted(true.to(y), y, mask)


def latent_copy(y: Tensor, mask: Tensor, image: Tensor | None = None, codec: Codec | None = None) -> InpaintResult:
    """The true images encoded and decoded, known pixels included.

    Raises:
        ValueError: There is no codec, or its images do not have y's shape.
    """
    true = _checked(y, mask, image)
    if codec is None:
        raise ValueError("codec is None, but latent_copy needs (encode, decode) of a latent model")
    encode, decode = codec
    with torch.no_grad():
        decoded = decode(encode(true))
    if decoded.shape != y.shape:
        raise ValueError(
            f"codec gives images of shape {tuple(decoded.shape)}, but must give y's shape {tuple(y.shape)}"
        )
    return InpaintResult(image=decoded.to(y))


def greyfill(y: Tensor, mask: Tensor, image: Tensor | None = None, codec: Codec | None = None) -> InpaintResult:
    """0, the middle of the data range, in the hole."""
    check_shapes(y, y, mask)
    return _pasted(torch.zeros_like(y), y, mask)


def _checked(y: Tensor, mask: Tensor, image: Tensor | None) -> Tensor:
    check_shapes(y, y, mask)
    if image is None:
        raise ValueError("image is None, but this oracle needs the true images")
    if image.shape != y.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, but must have y's shape {tuple(y.shape)}")
    return image


def _pasted(inside: Tensor, y: Tensor, mask: Tensor) -> InpaintResult:
    return InpaintResult(image=combine_image(inside, y, mask.to(y)))
