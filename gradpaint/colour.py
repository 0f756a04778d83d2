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
    if kind == "off" or strength == 0 or not known.any():
        return result
    make = {"mean": _mean, "mean and contrast": _mean_and_contrast, "smooth": _smooth}[kind]
    return result + strength * make(result, original, known)


def _mean(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    return (original[:, known] - result[:, known]).mean(1)[:, None, None]


def _mean_and_contrast(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    """Contrast changes by a factor of at most 2 either way: a flat surrounding says little about the hole."""
    ours, theirs = original[:, known], result[:, known]
    gain = (ours.std(1, correction=0) / theirs.std(1, correction=0).clamp_min(1e-4)).clamp(0.5, 2)[:, None, None]
    mean = theirs.mean(1)[:, None, None]
    return (result - mean) * (gain - 1) + ours.mean(1)[:, None, None] - mean


def _smooth(result: Tensor, original: Tensor, known: Tensor) -> Tensor:
    weight = known.float()
    height, width = weight.shape
    pad = (0, -width % CELL, 0, -height % CELL)
    total = F.avg_pool2d(F.pad((original - result) * weight, pad)[None], CELL)
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
