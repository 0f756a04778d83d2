"""Where each term of the loss pulls: the data of the paper's Fig. 3a."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .gradient import LossGradient
from .terms import Terms


def term_maps(total: LossGradient, others: Mapping[str, LossGradient], terms: Terms) -> dict[str, Tensor]:
    """|gradient in x| of each weighted term by name, (B, ..., H, W): the root of the sum of squares over channels.

    Args:
        total: Of the whole loss.
        others: Of each term that counts but the first one, without its weight. The first one's is what remains of the
            total; a vector sum of all is what eq. 9 normalizes.
        terms: See `terms.loss_terms`.
    """
    remaining, maps = _gradient(total), {}
    counting = [term for term in terms if term.weight]
    for term in [term for term in counting[1:] if term.name in others]:
        gradient = term.weight * _gradient(others[term.name])
        remaining = remaining - gradient
        maps[term.name] = _magnitude(gradient)
    return {counting[0].name: _magnitude(remaining), **maps} if counting else {}


def _gradient(result: LossGradient) -> Tensor:
    """The gradient itself; LossGradient holds a positive multiple of it, and its RMS."""
    gradient = result.gradient.detach().float()
    rms = gradient.flatten(1).square().mean(1).sqrt()
    scale = result.rms.to(rms) / torch.where(rms > 0, rms, 1.0)
    return gradient * scale.view((-1,) + (1,) * (gradient.ndim - 1))


def _magnitude(gradient: Tensor) -> Tensor:
    return gradient.square().sum(1).sqrt()
