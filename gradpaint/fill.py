"""What is put into the hole before the picture is encoded."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .harmonic import harmonic_fill
from .nearest import nearest_values

FILLS = ("fill", "original", "neutral", "blur", "edge", "noise")
EIGHT_BIT = 1 / 255


def fill_hole(image: Tensor, mask: Tensor, kind: str) -> Tensor:
    """The image with something else where the mask is 1. Grey parts keep what is there: it will be mixed in.

    Args:
        image: (B, C, H, W) in [0, 1].
        mask: (B, 1, H, W), 1 = repaint.
        kind: "fill", the surroundings continued smoothly (harmonic); "original", nothing is changed; "neutral", grey;
            "blur", what is in and around the hole, strongly blurred; "edge", the nearest known pixel; "noise",
            random pixels of the known ones' mean and spread, the same ones each time.
    """
    if kind not in FILLS:
        raise ValueError(f"masked_content is {kind!r}, but must be one of {', '.join(FILLS)}")
    hole, known = mask >= 1, mask <= 0
    if kind == "original" or not hole.any():
        return image
    return torch.where(hole, _MAKERS[kind](image, known.expand(len(image), -1, -1, -1)), image)


def _harmonic(image: Tensor, known: Tensor) -> Tensor:
    blank = ~known.flatten(1).any(1)
    out = harmonic_fill(image, ~known, tolerance=EIGHT_BIT)
    return out.where(~blank[:, None, None, None], 0.5)


def _neutral(image: Tensor, known: Tensor) -> Tensor:
    return torch.full_like(image, 0.5)


def _blur(image: Tensor, known: Tensor) -> Tensor:
    """By a Gaussian of a 32nd of the longer side, at a quarter of the size for speed."""
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
    return torch.stack([nearest_values(one, there[0]) if there.any() else torch.full_like(one, 0.5)
                        for one, there in zip(image, known)])


def _noise(image: Tensor, known: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(image.shape, generator=generator).to(image)
    weight = known.to(image)
    amount = weight.sum((2, 3), keepdim=True).clamp_min(1)
    mean = (image * weight).sum((2, 3), keepdim=True) / amount
    spread = ((image - mean).square() * weight).sum((2, 3), keepdim=True).div(amount).sqrt()
    return (mean + spread * noise).clamp(0, 1)


_MAKERS = {"fill": _harmonic, "neutral": _neutral, "blur": _blur, "edge": _edge, "noise": _noise}
