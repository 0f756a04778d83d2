"""Undoes color shifts between an image and what came back from the autoencoder and the sampler.

Only known pixels are compared. Images are (C, H, W). `known`, (H, W) bool, is where both should look the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .harmonic import harmonic_fill

CELL = 16  # pixels; "smooth" ignores finer differences


def match_colour(result: Tensor, original: Tensor, known: Tensor, kind: str, strength: float = 1.0) -> Tensor:
    """Give the result the original's colors. Without known pixels it is returned unchanged.

    Args:
        result: (C, H, W).
        original: (C, H, W).
        known: (H, W) bool.
        kind: "mean" shifts each channel; "mean and contrast" scales it too; "smooth" continues the difference on the
            known pixels smoothly into the hole (a membrane), so that it may vary over the image; "off".
        strength: share of the change that is made, 0 to 1.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in COLOUR_MATCHES:
        raise ValueError(f"colour_match is {kind!r}, but must be one of {', '.join(COLOUR_MATCHES)}")
    if kind == "off" or strength == 0:
        return result
    known = known & (result.isfinite() & original.isfinite()).all(0)
    if not known.any():
        return result
    return result + strength * _CHANGES[kind](result, original, known)


def _mean(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    return (original[:, known] - result[:, known]).mean(1)[:, None, None]


def _mean_and_contrast(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    """Change contrast at most twofold, and in proportion to the squared correlation of both images on known pixels.

    Where the surroundings are flat, all variation is noise, and says nothing about the hole.
    """
    target, source = original[:, known], result[:, known]
    target_mean, source_mean = target.mean(1, keepdim=True), source.mean(1, keepdim=True)
    target_variance = (target - target_mean).square().mean(1, keepdim=True)
    source_variance = (source - source_mean).square().mean(1, keepdim=True)
    covariance = ((target - target_mean) * (source - source_mean)).mean(1, keepdim=True)
    correlation = covariance.square() / (target_variance * source_variance).clamp_min(1e-12)
    ratio = (target_variance / source_variance.clamp_min(1e-8)).sqrt().clamp(0.5, 2)
    gain = 1 + correlation.clamp_max(1) * (ratio - 1)
    return (result - source_mean[..., None]) * (gain[..., None] - 1) + (target_mean - source_mean)[..., None]


def _smooth(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    weight = known.float()
    height, width = weight.shape
    pad = (0, -width % CELL, 0, -height % CELL)
    total = F.avg_pool2d(F.pad(torch.where(known, original - result, 0.0), pad)[None], CELL)
    amount = F.avg_pool2d(F.pad(weight, pad)[None, None], CELL)
    total, amount = _blur(total), _blur(amount)  # lost detail is not a shift
    hole = amount < 0.1
    if hole.all():
        return _mean(result, original, known).expand_as(result)
    shift = harmonic_fill(total / amount.clamp_min(0.1), hole, tolerance=1e-3)
    full = F.interpolate(shift, scale_factor=CELL, mode="bilinear", align_corners=False)
    return full[0, :, :height, :width]


def _blur(x: Tensor) -> Tensor:
    """Blur (1, C, H, W) with a 3 x 3 binomial kernel; cells outside the image have no weight."""
    channels = x.shape[1]
    kernel = torch.tensor([1.0, 2.0, 1.0], device=x.device)
    kernel = (kernel[:, None] * kernel / 16).expand(channels, 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=channels)


_CHANGES = {"smooth": _smooth, "mean": _mean, "mean and contrast": _mean_and_contrast}
COLOUR_MATCHES = (*_CHANGES, "off")
