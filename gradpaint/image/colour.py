"""Undoes the shift in colour between a picture and what came back from the autoencoder and the sampler.

Only known pixels are compared. Images are (C, H, W), `known` (H, W) is bool: where both show the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .harmonic import harmonic_fill

COLOUR_MATCHES = ("smooth", "mean", "mean and contrast", "off")
CELL = 16  # pixels: `smooth` follows differences no finer than this


def match_colour(result: Tensor, original: Tensor, known: Tensor, kind: str, strength: float = 1.0) -> Tensor:
    """The result in the original's colours; itself where nothing is known.

    kind: "mean", one shift per channel. "mean and contrast": the standard deviation too. "smooth": the difference on
    the known pixels, continued smoothly into the rest (a membrane), so it may vary over the picture. "off".
    strength: 0 to 1, how much of the change is made.
    """
    if kind not in COLOUR_MATCHES:
        raise ValueError(f"colour_match is {kind!r}, but must be one of {', '.join(COLOUR_MATCHES)}")
    if kind == "off" or strength == 0:
        return result
    known = known & (result.isfinite() & original.isfinite()).all(0)
    if not known.any():
        return result
    make = {"mean": _mean, "mean and contrast": _mean_and_contrast, "smooth": _smooth}[kind]
    return result + strength * make(result, original, known)


def _mean(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    return (original[:, known] - result[:, known]).mean(1)[:, None, None]


def _mean_and_contrast(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    """Contrast changes by a factor of at most 2 either way, and only as far as the two go together on the known part:
    a flat surrounding, where all spread is noise, says nothing about the hole."""
    ours, theirs = original[:, known], result[:, known]
    middle, mean = ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
    spread, other = ((x - m).square().mean(1, keepdim=True) for x, m in ((ours, middle), (theirs, mean)))
    together = ((ours - middle) * (theirs - mean)).mean(1, keepdim=True).square() / (spread * other).clamp_min(1e-12)
    gain = 1 + together.clamp_max(1) * ((spread / other.clamp_min(1e-8)).sqrt().clamp(0.5, 2) - 1)
    return (result - mean[..., None]) * (gain[..., None] - 1) + (middle - mean)[..., None]


def _smooth(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    weight = known.float()
    height, width = weight.shape
    pad = (0, -width % CELL, 0, -height % CELL)
    total = F.avg_pool2d(F.pad(torch.where(known, original - result, 0.0), pad)[None], CELL)
    amount = F.avg_pool2d(F.pad(weight, pad)[None, None], CELL)
    total, amount = _blur(total), _blur(amount)  # detail that the autoencoder lost is not a shift
    hole = amount < 0.1
    if hole.all():
        return _mean(result, original, known).expand_as(result)
    shift = harmonic_fill(total / amount.clamp_min(0.1), hole, tolerance=1e-3)
    full = F.interpolate(shift, scale_factor=CELL, mode="bilinear", align_corners=False)
    return full[0, :, :height, :width]


def _blur(x: Tensor) -> Tensor:
    """Binomial, 3 x 3 cells; what lies outside the picture weighs nothing."""
    channels = x.shape[1]
    kernel = torch.tensor([1.0, 2.0, 1.0], device=x.device)
    kernel = (kernel[:, None] * kernel / 16).expand(channels, 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=channels)
