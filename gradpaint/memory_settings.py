"""How guided steps use memory. Guidance needs the model's activations for its backward pass."""
from __future__ import annotations

from dataclasses import dataclass

AUTO, FASTEST, LOW_MEMORY, LOWEST_MEMORY = "auto", "fastest", "low memory", "lowest memory"
MODES = (AUTO, FASTEST, LOW_MEMORY, LOWEST_MEMORY)


@dataclass(frozen=True)
class MemorySettings:
    """mode: `auto` recomputes as many of the model's blocks in the backward pass as the free memory asks for;
    `fastest` recomputes none; `low memory` all; `lowest memory` all, and their inputs wait in host memory. None of them
    changes the result. On an out-of-memory error every mode but `fastest` goes on with less.
    allow_without_gradient: where no way fits, go on as with gradient "x0", without the model's, instead of an error.
    """

    mode: str = AUTO
    allow_without_gradient: bool = False

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"memory mode is {self.mode!r}; allowed are {', '.join(map(repr, MODES))}")
