"""The gradient of the loss in the model's input, the one that eq. 9 normalizes, and a stand-in without the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .decoders import View
from .terms import MSE, TOTAL, Losses, LossTerm, Terms, total_loss, weighted_sum


class LossGradient(NamedTuple):
    """A loss and its gradient in the state.

    Attributes:
        losses: Each term's value and the total, (B,), see `terms.Losses`.
        gradient: (B, ...), a positive multiple of each sample's gradient.
        rms: (B,), RMS of the gradient itself.
    """

    losses: Losses
    gradient: Tensor
    rms: Tensor


def loss_gradient(
    x: Tensor,
    x0_hat: Tensor,
    y: Tensor,
    mask: Tensor,
    terms: Terms,
    sigma: float = 1.0,
    *,
    border: Tensor | None = None,
    of: str = TOTAL,
    retain_graph: bool = False,
    view: View | None = None,
) -> LossGradient:
    """Differentiate eq. 8 on x0_hat(x), per sample, in x.

    It goes in two stages, because only the direction matters to eq. 9 and half-precision models have little range: the
    loss is differentiated in x0_hat in float32, each sample's result is scaled to RMS 1 / max(sigma, 1) (an
    eps-predicting model multiplies it by sigma on the way), and that is sent back through the model.

    Args:
        x: (B, ...), a leaf that requires grad.
        x0_hat: (B, ...), computed from x, with its graph.
        y: Shaped like x0_hat, the known image.
        mask: Broadcasts to x0_hat, 1 = hole.
        terms: See `terms.loss_terms`.
        sigma: Noise level of x.
        border: The mask's `border_band`, if the caller has it already.
        of: Which term is differentiated, without its weight; the total by default.
        retain_graph: x0_hat's graph will be needed again.
        view: The decoded image that decoded terms look at, in place of x0_hat itself.
    """
    estimate = x0_hat.detach().float().requires_grad_(True)
    losses, cotangent = _cotangent(estimate, y, mask, terms, border, view, of)
    scale = _rms(cotangent) * max(sigma, 1.0)
    scale = torch.where(scale > 0, scale, 1.0)
    shape = (-1,) + (1,) * (cotangent.ndim - 1)
    (gradient,) = torch.autograd.grad(
        x0_hat, x, (cotangent / scale.view(shape)).to(x0_hat.dtype), retain_graph=retain_graph
    )
    return LossGradient({name: value.detach() for name, value in losses.items()}, gradient, _rms(gradient) * scale)


def _cotangent(
    estimate: Tensor, y: Tensor, mask: Tensor, terms: Terms, border: Tensor | None, view: View | None, of: str
) -> tuple[Losses, Tensor]:
    """The losses, each (B,), and the gradient of one of them in the estimate, a leaf. Samples are independent."""
    decoded = [term for term in terms if term.decoded and term.weight] if view is not None else []
    direct = [term.off() if term in decoded else term for term in terms]
    losses = total_loss(estimate, y, mask, direct, border)
    if not decoded or view is None:
        return losses, torch.autograd.grad(losses[of].sum(), estimate)[0]
    gradients = {term.name: torch.autograd.grad(losses[term.name].sum(), estimate)[0] for term in direct if term.weight}
    for term in decoded:
        samples = [_through_decoder(estimate[i : i + 1].detach(), term, view.sample(i)) for i in range(len(estimate))]
        losses[term.name], gradients[term.name] = map(torch.cat, zip(*samples))
    losses[TOTAL], gradients[TOTAL] = weighted_sum(losses, terms), weighted_sum(gradients, terms)
    return losses, gradients[of]


def _through_decoder(estimate: Tensor, term: LossTerm, view: View) -> tuple[Tensor, Tensor]:
    """A term's value on the decoded estimate, (1,), and its gradient in the estimate, (1, ...).

    One sample at a time: decoders are large. The gradient in the image, of the order of one over the number of pixels,
    is scaled on its way through the decoder, which may compute in half precision.
    """
    leaf = estimate.requires_grad_(True)
    image = view.decode(leaf)
    pixels = image.detach().float().requires_grad_(True)
    value = term.function(pixels, view.y, view.mask, view.border)
    (gradient,) = torch.autograd.grad(value.sum(), pixels)
    peak = gradient.abs().amax()
    peak = torch.where(peak > 0, peak, 1.0)
    (back,) = torch.autograd.grad(image, leaf, (gradient / peak).to(image.dtype))
    return value.detach(), back.float() * peak


def x0_gradient(
    x0_hat: Tensor,
    y: Tensor,
    mask: Tensor,
    terms: Terms,
    a: float = 1.0,
    b: float = 1.0,
    *,
    border: Tensor | None = None,
    components: Sequence[torch.Size] = (),
) -> LossGradient:
    """A stand-in for `loss_gradient` without the model: no graph is needed, and no backward pass is made.

    The gradient of the masked MSE in x0_hat is carried to x by the derivative that the best denoiser would have if
    images were Gaussian with a natural spectrum S, which is Wiener's filter a*S / (a^2*S + b^2): as smooth as the noise
    is strong, so that the known region's error reaches into the hole. The other terms are among the losses, but not in
    the direction: smoothed, the edge match does harm (measured). With the masked MSE switched off it is zero.

    Args:
        x0_hat: (B, ...), any.
        y, mask, terms, border: See `loss_gradient`.
        a, b: Of the state, `a*x0 + b*eps`.
        components: Where x0_hat is packed, (B, 1, N), the shapes of the tensors in it; each is filtered by itself.
    """
    with torch.no_grad():
        estimate = x0_hat.detach().float()
        losses = total_loss(estimate, y, mask, terms, border)
        weight = (1 - mask).expand_as(estimate)
        total = weight.flatten(1).sum(1).view((-1,) + (1,) * (estimate.ndim - 1))
        on = float(any(term.weight for term in terms if term.name == MSE))
        gradient = 2 * on * weight * (estimate - y) / torch.where(total == 0, 1.0, total)
        gradient = _filtered(gradient, a, b, components if len(components) > 1 else [gradient.shape])
    return LossGradient(losses, gradient, _rms(gradient))


def _filtered(gradient: Tensor, a: float, b: float, components: Sequence[torch.Size]) -> Tensor:
    """`wiener` on each of the tensors of these shapes; those without height and width stay as they are."""
    flat = gradient.flatten(1).split([math.prod(shape[1:]) for shape in components], dim=1)
    filtered = [wiener(t.view(shape), a, b).flatten(1) if len(shape) > 3 else t for t, shape in zip(flat, components)]
    return torch.cat(filtered, dim=1).view(gradient.shape)


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


def _rms(t: Tensor) -> Tensor:
    return t.detach().float().flatten(1).square().mean(1).sqrt()
