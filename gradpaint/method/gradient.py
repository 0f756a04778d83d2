"""The gradient of the loss in the model's input, the one that eq. 9 normalises, and a stand-in without the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .decoders import View
from .losses import LossTerms, masked_mse, total_loss
from .settings import AlignmentSettings


class LossGradient(NamedTuple):
    """terms: eq. 8, each (B,); grad: (B, ...), a positive multiple of each sample's gradient; rms: (B,), RMS of the
    gradient itself."""

    terms: LossTerms
    grad: Tensor
    rms: Tensor


def loss_gradient(
    x: Tensor,
    x0_hat: Tensor,
    y: Tensor,
    mask: Tensor,
    alignment: AlignmentSettings,
    sigma: float = 1.0,
    border: Tensor | None = None,
    of: str = "total",
    retain_graph: bool = False,
    view: View | None = None,
) -> LossGradient:
    """Differentiate eq. 8 on x0_hat(x), per sample, in x.

    x: (B, ...) leaf that requires grad; x0_hat: (B, ...), computed from x with its graph; y, mask, border: see
    `losses.total_loss`; sigma: noise level of x. of: which of the terms is differentiated (without its weight), for
    pictures of the terms; retain_graph: x0_hat's graph will be needed again. view: the decoded image that the
    alignment loss looks at, in place of x0_hat itself.

    In two stages, because only the direction matters to eq. 9 and half-precision models have little range: the loss is
    differentiated in x0_hat in float32, each sample's result is scaled to RMS 1 / max(sigma, 1) (an eps-predicting
    model multiplies it by sigma on the way), and that is sent back through the model.
    """
    estimate = x0_hat.detach().float().requires_grad_(True)
    terms, cotangent = _cotangent(estimate, y, mask, alignment, border, view, of)
    scale = _rms(cotangent) * max(sigma, 1.0)
    scale = torch.where(scale > 0, scale, 1.0)
    shape = (-1,) + (1,) * (cotangent.ndim - 1)
    (grad,) = torch.autograd.grad(
        x0_hat, x, (cotangent / scale.view(shape)).to(x0_hat.dtype), retain_graph=retain_graph
    )
    return LossGradient(LossTerms(*(term.detach() for term in terms)), grad, _rms(grad) * scale)


def _cotangent(
    estimate: Tensor,
    y: Tensor,
    mask: Tensor,
    alignment: AlignmentSettings,
    border: Tensor | None,
    view: View | None,
    of: str,
) -> tuple[LossTerms, Tensor]:
    """The terms of eq. 8, each (B,), and one's gradient in the estimate, a leaf. Samples are independent."""
    if view is None or alignment.lambda_al == 0:
        terms = _terms(estimate, y, mask, alignment, border)
        return terms, torch.autograd.grad(getattr(terms, of).sum(), estimate)[0]
    mse = masked_mse(estimate, y, mask)
    (on_latent,) = torch.autograd.grad(mse.sum(), estimate)
    seen = [_seen_alignment(estimate[i : i + 1].detach(), alignment, view.sample(i)) for i in range(len(estimate))]
    values, on_image = map(torch.cat, zip(*seen))
    terms = LossTerms(mse + alignment.lambda_al * values, mse, values)
    return terms, LossTerms(on_latent + alignment.lambda_al * on_image, on_latent, on_image)._asdict()[of]


def _seen_alignment(estimate: Tensor, alignment: AlignmentSettings, view: View) -> tuple[Tensor, Tensor]:
    """Eq. 6 through the decoder, (1,), and its gradient in the estimate, (1, ...). One sample: decoders are large.

    The gradient in the image, of the order of one over the number of pixels, is scaled on its way through the decoder,
    which may compute in half precision.
    """
    leaf = estimate.requires_grad_(True)
    image = view.decode(leaf)
    pixels = image.detach().float().requires_grad_(True)
    value = view.loss(pixels, alignment)
    (grad,) = torch.autograd.grad(value.sum(), pixels)
    peak = grad.abs().amax()
    peak = torch.where(peak > 0, peak, 1.0)
    (back,) = torch.autograd.grad(image, leaf, (grad / peak).to(image.dtype))
    return value.detach(), back.float() * peak


def x0_gradient(
    x0_hat: Tensor,
    y: Tensor,
    mask: Tensor,
    alignment: AlignmentSettings,
    a: float = 1.0,
    b: float = 1.0,
    border: Tensor | None = None,
    parts: Sequence[torch.Size] = (),
) -> LossGradient:
    """A stand-in for `loss_gradient` without the model: no graph is needed, and no backward pass is made.

    x0_hat: (B, ...), any; a, b: the state's, `a*x0 + b*eps`. The gradient of the masked MSE in x0_hat is carried to x
    by the derivative that the best denoiser would have if images were Gaussian with a natural spectrum S, which is
    Wiener's filter a*S / (a^2*S + b^2): as smooth as the noise is strong, so the known part's error reaches into the
    hole. parts: where x0_hat is packed, (B, 1, N), the shapes of the tensors in it, each of which is filtered by
    itself. The alignment loss is among the terms, but not in the direction: smoothed, it does harm (measured).
    """
    with torch.no_grad():
        estimate = x0_hat.detach().float()
        terms = _terms(estimate, y, mask, alignment, border)
        weight = (1 - mask).expand_as(estimate)
        total = weight.flatten(1).sum(1).view((-1,) + (1,) * (estimate.ndim - 1))
        grad = 2 * weight * (estimate - y) / torch.where(total == 0, 1.0, total)
        grad = _filtered(grad, a, b, parts if len(parts) > 1 else [grad.shape])
    return LossGradient(terms, grad, _rms(grad))


def _filtered(grad: Tensor, a: float, b: float, parts: Sequence[torch.Size]) -> Tensor:
    """`wiener` on each of the tensors of these shapes in grad; those without height and width are left as they are."""
    flat = grad.flatten(1).split([math.prod(shape[1:]) for shape in parts], dim=1)
    done = [wiener(t.view(shape), a, b).flatten(1) if len(shape) > 3 else t for t, shape in zip(flat, parts)]
    return torch.cat(done, dim=1).view(grad.shape)


def wiener(t: Tensor, a: float, b: float) -> Tensor:
    """Filter (.., H, W) by S / (a^2*S + b^2) with S(f) ~ 1 / (f^2 + f_0^2) and mean 1, f_0 two periods per image.

    Symmetric and positive. The image goes on as its mirror image beyond its edges.
    """
    height, width = t.shape[-2:]
    t = torch.cat([t, t.flip(-1)], dim=-1)
    t = torch.cat([t, t.flip(-2)], dim=-2)
    square = (
        torch.fft.fftfreq(2 * height, device=t.device).square()[:, None]
        + torch.fft.fftfreq(2 * width, device=t.device).square()
    )
    spectrum = 1 / (square + (2 / max(height, width)) ** 2)
    spectrum = spectrum / spectrum.mean()
    response = (spectrum / (a * a * spectrum + b * b))[:, : width + 1]
    return torch.fft.irfft2(torch.fft.rfft2(t) * response, s=t.shape[-2:])[..., :height, :width]


def _terms(estimate: Tensor, y: Tensor, mask: Tensor, alignment: AlignmentSettings, border: Tensor | None) -> LossTerms:
    return total_loss(
        estimate,
        y,
        mask,
        alignment.lambda_al,
        border_width=alignment.border_width,
        softness=alignment.softness,
        border=border,
    )


def _rms(t: Tensor) -> Tensor:
    return t.detach().float().flatten(1).square().mean(1).sqrt()
