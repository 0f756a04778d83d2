"""What one step of a run did: the same record in the library and in ComfyUI."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from .terms import MSE, Losses, Terms


class StepKind(enum.Enum):
    """What eq. 9 does at a step."""

    GUIDED = "guided"  # a gradient is taken, and the next state displaced
    REUSED = "reused"  # the next state is displaced along the last gradient
    PLAIN = "plain"  # nothing


@dataclass
class StepRecord:
    """What one step did.

    Attributes:
        step: Its number, from 0.
        sigma: Noise level of the state that it started from.
        kind: See `StepKind`.
        losses: Where a gradient was taken, the value of each term and of their total, (B,) each; empty elsewhere.
        titles: What reports call the terms that counted at this step, and the MSE, by name; empty like `losses`.
        gradient_rms: (B,), where a gradient was taken.
        x0_hat: The estimate before the known region is pasted in, where it was to be kept.
        maps: |gradient in x| of each term, (B, ..., H, W), where they were to be kept; see `term_maps`.
    """

    step: int
    sigma: float
    kind: StepKind = StepKind.PLAIN
    losses: Losses = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    gradient_rms: Tensor | None = None
    x0_hat: Tensor | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)

    @property
    def guided(self) -> bool:
        """Whether a gradient was taken."""
        return self.kind is StepKind.GUIDED

    @property
    def reused(self) -> bool:
        """Whether the last gradient was used again."""
        return self.kind is StepKind.REUSED


def counted_titles(terms: Terms) -> dict[str, str]:
    """The titles of the terms that count, and of the MSE, which is always recorded, by name."""
    return {term.name: term.title for term in terms if term.weight or term.name == MSE}


def titles_of(steps: Iterable[StepRecord]) -> dict[str, str]:
    """The titles of all terms that counted at any of the steps, by name."""
    return {name: title for step in steps for name, title in step.titles.items()}
