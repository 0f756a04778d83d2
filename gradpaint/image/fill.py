"""Fills the hole before the image is encoded."""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .harmonic import harmonic_fill
from .nearest import mirrored, nearest_known

TOLERANCE = 1 / 255  # of smooth fills: one step of an 8-bit image
MIRRORED = 64  # pixels into the hole: farther than a VAE sees from a cell next to it


def fill_hole(image: Tensor, mask: Tensor, kind: str) -> Tensor:
    """Replace the image where the mask is 1. Gray areas are left as they are, because they will be mixed in.

    Args:
        image: (B, C, H, W) in [0, 1].
        mask: (B, 1, H, W), 1 = repaint.
        kind: "fill": the surroundings, mirrored at the border and smooth farther in; "original": no change; "smooth":
            the surroundings, continued smoothly (harmonic); "neutral": gray; "blur": the image itself, strongly
            blurred; "edge": the nearest known pixel; "noise": random pixels with the mean and spread of the known
            ones, the same each time.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: unknown kind.
    """
    if kind not in FILLS:
        raise ValueError(f"masked_content is {kind!r}, but must be one of {', '.join(FILLS)}")
    hole, known = mask >= 1, mask <= 0
    if kind == "original" or not hole.any():
        return image
    return torch.where(hole, _CONTENTS[kind](image, known.expand(len(image), -1, -1, -1)), image)


def _original(image: Tensor, known: Tensor) -> Tensor:
    return image


def _mirrored(image: Tensor, known: Tensor) -> Tensor:
    """Mirror the surroundings at the border, fading into the smooth fill.

    A VAE carries the hole's content into the known latent cells next to it. With mirrored surroundings, these cells
    come closest to the true image's (measured against all other fills).
    """

    def fill(one: Tensor, known: Tensor) -> Tensor:
        filled = _harmonic(one, known)
        here, mirror, distance = mirrored(known, MIRRORED)
        smooth = filled.flatten(1)[:, here]
        mix = smooth + (1 - distance / MIRRORED) * (one.flatten(1)[:, mirror] - smooth)
        filled.view(len(one), -1)[:, here] = mix
        return filled

    return _fill_each(image, known, fill)


def _smooth(image: Tensor, known: Tensor) -> Tensor:
    return _fill_each(image, known, _harmonic)


def _harmonic(one: Tensor, known: Tensor) -> Tensor:
    return harmonic_fill(one[None], ~known[None, None], TOLERANCE)[0]


def _neutral(image: Tensor, known: Tensor) -> Tensor:
    return torch.full_like(image, 0.5)


def _blur(image: Tensor, known: Tensor) -> Tensor:
    """Blur by a Gaussian with 1/32 of the longer side as its sigma; large images at a quarter of their size."""
    small = F.interpolate(image, scale_factor=0.25, mode="area") if min(image.shape[-2:]) >= 64 else image
    sigma = max(small.shape[-2:]) / 32
    reach = min(int(3 * sigma) + 1, min(small.shape[-2:]) - 1)
    x = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-x * x / (2 * sigma * sigma))
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    for weight, pad in ((kernel, (reach, reach, 0, 0)), (kernel.transpose(2, 3), (0, 0, reach, reach))):
        small = F.conv2d(F.pad(small, pad, mode="replicate"), weight, groups=image.shape[1])
    return F.interpolate(small, size=image.shape[-2:], mode="bilinear", align_corners=False)


def _edge(image: Tensor, known: Tensor) -> Tensor:
    def fill(one: Tensor, known: Tensor) -> Tensor:
        here, nearest, _ = nearest_known(known)
        filled = one.clone(memory_format=torch.contiguous_format)
        filled.view(len(one), -1)[:, here] = filled.flatten(1)[:, nearest]
        return filled

    return _fill_each(image, known, fill)


def _fill_each(image: Tensor, known: Tensor, fill: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply fill((C, H, W), known (H, W)) to each image; images without known pixels become gray."""
    return torch.stack(
        [fill(one, mask[0]) if mask.any() else torch.full_like(one, 0.5) for one, mask in zip(image, known)]
    )


def _noise(image: Tensor, known: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(image.shape, generator=generator).to(image)
    weight = known.to(image)
    amount = weight.sum((2, 3), keepdim=True).clamp_min(1)
    mean = (image * weight).sum((2, 3), keepdim=True) / amount
    spread = ((image - mean).square() * weight).sum((2, 3), keepdim=True).div(amount).sqrt()
    return (mean + spread * noise).clamp(0, 1)


_CONTENTS = {
    "fill": _mirrored,
    "original": _original,
    "smooth": _smooth,
    "neutral": _neutral,
    "blur": _blur,
    "edge": _edge,
    "noise": _noise,
}
FILLS = tuple(_CONTENTS)
