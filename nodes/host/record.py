"""What a guided run reports when it is over."""
from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class RunRecord:
    """What a run did, for logs and reports. Loss terms are lists with one (B,) CPU tensor per guided step."""

    steps: int = 0
    evaluations: int = 0
    backwards: int = 0
    skipped_nudges: int = 0
    guided_sigmas: list[float] = field(default_factory=list)
    kept_sigmas: list[float] = field(default_factory=list)  # steps nudged in the last guided step's direction
    total: list[Tensor] = field(default_factory=list)
    mse: list[Tensor] = field(default_factory=list)
    alignment: list[Tensor] = field(default_factory=list)
    grad_rms: list[Tensor] = field(default_factory=list)
