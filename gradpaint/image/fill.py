"""What is put into the hole before the picture is encoded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .harmonic import harmonic_fill
from .nearest import mirrored, nearest_known

FILLS = ("fill", "original", "smooth", "neutral", "blur", "edge", "noise")
EIGHT_BIT = 1 / 255
MIRRORED = 64  # pixels into the hole; wider than what a VAE sees from a cell beside it


def fill_hole(image: Tensor, mask: Tensor, kind: str) -> Tensor:
    """The image with something else where the mask is 1. Grey parts keep what is there: it will be mixed in.

    Args:
        image: (B, C, H, W) in [0, 1].
        mask: (B, 1, H, W), 1 = repaint.
        kind: "fill", the surroundings, mirrored at the border and smooth farther in; "original", nothing is changed;
            "smooth", the surroundings continued smoothly (harmonic); "neutral", grey; "blur", what is in and
            around the hole, strongly blurred; "edge", the nearest known pixel; "noise", random pixels of the known
            ones' mean and spread, the same ones each time.
    """
    if kind not in FILLS:
        raise ValueError(f"masked_content is {kind!r}, but must be one of {', '.join(FILLS)}")
    hole, known = mask >= 1, mask <= 0
    if kind == "original" or not hole.any():
        return image
    return torch.where(hole, _MAKERS[kind](image, known.expand(len(image), -1, -1, -1)), image)


def _mirrored(image: Tensor, known: Tensor) -> Tensor:
    """Measured with a VAE: the hole's content reaches into the known latent cells beside it, and with the picture
    mirrored at the border they are nearer to the true picture's than with any other content."""

    def make(one: Tensor, there: Tensor) -> Tensor:
        filled = harmonic_fill(one[None], ~there[None, None], EIGHT_BIT)[0]
        here, mirror, distance = mirrored(there, MIRRORED)
        smooth = filled.flatten(1)[:, here]
        mix = smooth + (1 - distance / MIRRORED) * (one.flatten(1)[:, mirror] - smooth)
        filled.view(len(one), -1)[:, here] = mix
        return filled

    return _from_known(image, known, make)


def _smooth(image: Tensor, known: Tensor) -> Tensor:
    return _from_known(image, known, lambda one, there: harmonic_fill(one[None], ~there[None, None], EIGHT_BIT)[0])


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
    def make(one: Tensor, there: Tensor) -> Tensor:
        here, near, _ = nearest_known(there)
        filled = one.clone(memory_format=torch.contiguous_format)
        filled.view(len(one), -1)[:, here] = filled.flatten(1)[:, near]
        return filled

    return _from_known(image, known, make)


def _from_known(image: Tensor, known: Tensor, make) -> Tensor:
    """make((C, H, W), (H, W)) of each image; grey where nothing is known."""
    return torch.stack(
        [make(one, there[0]) if there.any() else torch.full_like(one, 0.5) for one, there in zip(image, known)]
    )


def _noise(image: Tensor, known: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(image.shape, generator=generator).to(image)
    weight = known.to(image)
    amount = weight.sum((2, 3), keepdim=True).clamp_min(1)
    mean = (image * weight).sum((2, 3), keepdim=True) / amount
    spread = ((image - mean).square() * weight).sum((2, 3), keepdim=True).div(amount).sqrt()
    return (mean + spread * noise).clamp(0, 1)


_MAKERS = {"fill": _mirrored, "smooth": _smooth, "neutral": _neutral, "blur": _blur, "edge": _edge, "noise": _noise}
