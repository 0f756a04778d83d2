"""The gradient of the loss, the one that eq. 9 normalises: in the model's input, or as a substitute in its output."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .losses import LossTerms, total_loss
from .settings import AlignmentSettings


class LossGradient(NamedTuple):
    """terms: eq. 8, each (B,); grad: (B, ...), a positive multiple of each sample's gradient; rms: (B,), RMS of the
    gradient itself."""

    terms: LossTerms
    grad: Tensor
    rms: Tensor


def loss_gradient(x: Tensor, x0_hat: Tensor, y: Tensor, mask: Tensor, alignment: AlignmentSettings,
                  sigma: float = 1.0, border: Tensor | None = None) -> LossGradient:
    """Differentiate eq. 8 on x0_hat(x), per sample, in x.

    x: (B, ...) leaf that requires grad; x0_hat: (B, ...), computed from x with its graph; y, mask, border: see
    `losses.total_loss`; sigma: noise level of x.

    In two stages, because only the direction matters to eq. 9 and half-precision models have little range: the loss is
    differentiated in x0_hat in float32, each sample's result is scaled to RMS 1 / max(sigma, 1) (an eps-predicting
    model multiplies it by sigma on the way), and that is sent back through the model.
    """
    terms, cotangent, rms = x0_gradient(x0_hat, y, mask, alignment, border)
    scale = rms * max(sigma, 1.0)
    scale = torch.where(scale > 0, scale, 1.0)
    shape = (-1,) + (1,) * (cotangent.ndim - 1)
    (grad,) = torch.autograd.grad(x0_hat, x, (cotangent / scale.view(shape)).to(x0_hat.dtype))
    return LossGradient(terms, grad, _rms(grad) * scale)


def x0_gradient(x0_hat: Tensor, y: Tensor, mask: Tensor, alignment: AlignmentSettings,
                border: Tensor | None = None) -> LossGradient:
    """Differentiate eq. 8 per sample in x0_hat itself (B, ...), which may or may not have a graph. Float32.

    As a direction for eq. 9 this takes d x0_hat / dx for a positive multiple of the identity. It is one only on
    average: the true derivative is symmetric and positive for an ideal denoiser (its covariance given x, over sigma^2),
    and carries the known part's errors into the hole, which this does not.
    """
    with torch.enable_grad():
        estimate = x0_hat.detach().float().requires_grad_(True)
        terms = total_loss(estimate, y, mask, alignment.lambda_al, border_width=alignment.border_width,
                           softness=alignment.softness, border=border)
        (grad,) = torch.autograd.grad(terms.total.sum(), estimate)  # samples are independent of each other
    return LossGradient(LossTerms(*(term.detach() for term in terms)), grad, _rms(grad))


def _rms(t: Tensor) -> Tensor:
    return t.detach().float().flatten(1).square().mean(1).sqrt()
