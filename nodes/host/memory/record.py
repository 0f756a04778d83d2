"""How a run made do with memory."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class MemoryRecord:
    """How the guided steps made do with memory. rungs: one description per guided step; peak_bytes: the most that one
    of them took beyond what was allocated at its start, measured as peak_kind says, None without a guided step;
    repeats: steps that ran out of memory and were made again."""

    rungs: list[str] = field(default_factory=list)
    peak_bytes: int | None = None
    peak_kind: str = ""
    repeats: int = 0

    def add(self, rung: str, peak_bytes: int, peak_kind: str) -> None:
        """A guided step is done."""
        self.rungs.append(rung)
        if self.peak_bytes is None or peak_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_kind = peak_bytes, peak_kind
