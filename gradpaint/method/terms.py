"""The loss of eq. 8 as a sum of terms: which there are, what each weighs, and how long it counts.

A new loss at the border needs a file in `losses/` with a LOSS in it, its name in `settings.ALIGNMENT_LOSSES`, a test.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .losses import BorderLoss, check_shapes
from .settings import GuidanceSettings

TOTAL, MSE, ALIGNMENT = "total", "mse", "alignment"
MSE_TITLE = "masked MSE (eq. 5)"

Losses = dict[str, Tensor]
"""Value of each term by name, and their weighted sum under TOTAL; each (B,)."""

LossFunction = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(estimate, known image, mask, border band or None) -> (B,)."""


@dataclass(frozen=True)
class LossTerm:
    """One term of eq. 8.

    Attributes:
        name: Under which its values are recorded; the term at the border is ALIGNMENT, whichever loss it is.
        weight: Its lambda; 0 switches it off.
        function: The loss itself.
        fraction: Share of the run's steps, from the first, during which it counts.
        decoded: It looks at the decoded image where the run has a decoder, else at the estimate itself.
        title: What reports and pictures call it.
    """

    name: str
    weight: float
    function: LossFunction
    fraction: float = 1.0
    decoded: bool = False
    title: str = ""

    def off(self) -> LossTerm:
        """The same term with weight 0."""
        return dataclasses.replace(self, weight=0.0)


Terms = Sequence[LossTerm]


def border_loss(name: str) -> BorderLoss:
    """The loss at the border of that name: LOSS in `losses/<name>.py`, with _ in the file's name for -."""
    return importlib.import_module(f".losses.{name.replace('-', '_')}", __package__).LOSS


def loss_terms(settings: GuidanceSettings) -> tuple[LossTerm, ...]:
    """The terms of a run's loss, the masked MSE first."""
    alignment = settings.alignment
    weight = 0.0 if alignment.space == "off" else alignment.lambda_al
    loss = border_loss(alignment.loss)

    def mse(x0_hat: Tensor, y: Tensor, mask: Tensor, border: Tensor | None) -> Tensor:
        return loss.mse(x0_hat, y, mask)

    def at_border(x0_hat: Tensor, y: Tensor, mask: Tensor, border: Tensor | None) -> Tensor:
        return loss.function(x0_hat, y, mask, border, alignment)

    return (
        LossTerm(MSE, settings.lambda_mse, mse, title=MSE_TITLE),
        LossTerm(ALIGNMENT, weight, at_border, alignment.fraction, decoded=True, title=loss.title),
    )


def without_decoded(terms: Terms) -> tuple[LossTerm, ...]:
    """The terms with those switched off that would look at a decoded image."""
    return tuple(term.off() if term.decoded else term for term in terms)


def total_loss(x0_hat: Tensor, y: Tensor, mask: Tensor, terms: Terms, border: Tensor | None = None) -> Losses:
    """Eq. 8: every term's value and their weighted sum.

    A term that is switched off is not computed and has the value 0, but for the MSE, which is always recorded.

    Args:
        x0_hat: (B, C, ..., H, W), the estimate.
        y: Shaped like x0_hat, the known image.
        mask: Broadcasts to x0_hat.
        terms: See `loss_terms`.
        border: The mask's `border_band`, if the caller has it already.

    Raises:
        ValueError: A shape does not fit.
    """
    check_shapes(x0_hat, y, mask)
    zero = x0_hat.new_zeros(len(x0_hat))
    values = {
        term.name: term.function(x0_hat, y, mask, border) if term.weight or term.name == MSE else zero for term in terms
    }
    return {TOTAL: weighted_sum(values, terms), **values}


def weighted_sum(values: dict[str, Tensor], terms: Terms) -> Tensor:
    """Sum of the values (or gradients) of the terms that count, each times its weight."""
    counting = [term for term in terms if term.weight]
    if not counting:
        return torch.zeros_like(next(iter(values.values())))
    first, *rest = (values[term.name] if term.weight == 1 else term.weight * values[term.name] for term in counting)
    return sum(rest, start=first)
