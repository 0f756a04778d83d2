"""Classifier-free guidance for the host-free samplers: two denoisers as one."""

from __future__ import annotations

import torch
from torch import Tensor

from .evaluate import Denoiser


class ClassifierFree:
    """x0_hat = negative + scale * (positive - negative), both (x, sigma) -> x0_hat.

    For classifier-free guidance (Ho and Salimans) the two are one model with and without its condition; with a weaker
    model as `negative` it is autoguidance (Karras et al.).
    """

    def __init__(self, positive: Denoiser, negative: Denoiser, scale: float):
        self.positive, self.negative, self.scale = positive, negative, scale

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._mix(self.positive(x, sigma), self.negative(x, sigma))

    def through_cond(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The same x0_hat with a graph through `positive` only."""
        with torch.no_grad():
            negative = self.negative(x.detach(), sigma)
        return self._mix(self.positive(x, sigma), negative)

    def _mix(self, positive: Tensor, negative: Tensor) -> Tensor:
        return negative + self.scale * (positive - negative)
