"""Where each term of the loss pulls: the data of the paper's Fig. 3a."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .gradient import LossGradient


class TermMaps(NamedTuple):
    """|gradient in x| of one step, each (B, ..., H, W): root of the sum of squares over channels. mse: of eq. 5;
    alignment: of eq. 6 times lambda_al, None where that term is off. Their vector sum is what eq. 9 normalises."""

    mse: Tensor
    alignment: Tensor | None


def term_maps(total: LossGradient, alignment: LossGradient | None, lambda_al: float) -> TermMaps:
    """From the gradients of the total loss and of the alignment term alone; the rest is the MSE's, by linearity."""
    whole = _gradient(total)
    if alignment is None:
        return TermMaps(_magnitude(whole), None)
    part = lambda_al * _gradient(alignment)
    return TermMaps(_magnitude(whole - part), _magnitude(part))


def _gradient(found: LossGradient) -> Tensor:
    """The gradient itself; LossGradient holds a positive multiple of it, and its RMS."""
    grad = found.grad.detach().float()
    rms = grad.flatten(1).square().mean(1).sqrt()
    scale = found.rms.to(rms) / torch.where(rms > 0, rms, 1.0)
    return grad * scale.view((-1,) + (1,) * (grad.ndim - 1))


def _magnitude(grad: Tensor) -> Tensor:
    return grad.square().sum(1).sqrt()
