"""How long the steps of a run take, without making the CPU wait for a GPU."""

from __future__ import annotations

import time
from typing import Any

import torch


class StepClock:
    """`mark` at the start of each step, `close` when the run's last result has been read."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._start = time.perf_counter()
        self._marks: list[tuple[str, Any]] = []

    def mark(self, kind: str) -> None:
        """A step of that kind begins, and the one before it ends."""
        self._marks.append((kind, self._now()))

    def close(self) -> tuple[float, dict[str, list[float]]]:
        """Seconds of the whole run, and of each step by kind."""
        end = self._now()
        if self._cuda:
            torch.cuda.synchronize()
        steps: dict[str, list[float]] = {}
        times = [at for _, at in self._marks] + [end]
        for (kind, at), after in zip(self._marks, times[1:]):
            steps.setdefault(kind, []).append(self._between(at, after))
        return time.perf_counter() - self._start, steps

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) / 1000 if self._cuda else end - start
