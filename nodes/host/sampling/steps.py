"""Which step of a run a model call belongs to, by the call map of a dry run or, without one, by the noise level."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....gradpaint.method.plan import Step
from .probe import CallMap


class StepCounter:
    """Counts a run's model calls. `call_map` becomes None when the sampler turns out not to follow it."""

    def __init__(self, call_map: CallMap | None, sigmas: Tensor) -> None:
        self.call_map, self.sigmas = call_map, sigmas
        self._calls = self._callbacks = 0
        self._last_index = -1

    @property
    def total(self) -> int:
        """Number of the run's steps."""
        return len(self.sigmas) - 1 if self.call_map is None else self.call_map.total

    def step(self, timestep: Tensor) -> Step | None:
        """Called at each model call: the step that it belongs to, None for a step's inner stages."""
        self._calls += 1
        if self.call_map is not None:
            return self.call_map.steps.get(self._calls - 1)  # no look at timestep: it may lie on a busy GPU
        # No call map: the first call at or below each noise level of the schedule is a step.
        sigma = float(timestep.flatten()[0])
        index = int((self.sigmas[:-1] >= sigma * (1 - 1e-4)).sum()) - 1
        if index <= self._last_index or index < 0:
            return None
        self._last_index = index
        return Step(index, sigma, float(self.sigmas[index + 1]))

    def callback(self) -> bool:
        """Called at each of the sampler's callbacks: whether the call map has just been given up."""
        if self.call_map is None:
            return False
        self._callbacks += 1
        planned = self.call_map.counts[self._callbacks - 1] if self._callbacks <= len(self.call_map.counts) else None
        if planned == self._calls:
            return False
        done = [step.index for call, step in self.call_map.steps.items() if call < self._calls]
        self._last_index = max(done, default=-1)
        self.call_map = None
        return True


class StateLevels:
    """a and b of the states `a*x0 + b*eps` at each noise level, looked up once per run for the levels given."""

    def __init__(self, model_sampling: Any, levels: list[float], device: torch.device) -> None:
        self._model_sampling, self._device = model_sampling, device
        self._known: dict[float, tuple[float, float]] = {}
        self._look_up(levels)

    def __getitem__(self, sigma: float) -> tuple[float, float]:
        if sigma not in self._known:  # of a sampler that chooses its own
            self._look_up([sigma])
        return self._known[sigma]

    def scale(self, sigma: float) -> float:
        """s(sigma) = sqrt(a^2 + b^2), see gradpaint.method.step."""
        return math.hypot(*self[sigma])

    def _look_up(self, levels: list[float]) -> None:
        sigmas = torch.tensor(levels, dtype=torch.float32, device=self._device)
        noised = self._model_sampling.noise_scaling
        a = noised(sigmas, torch.zeros_like(sigmas), torch.ones_like(sigmas))
        b = noised(sigmas, torch.ones_like(sigmas), torch.zeros_like(sigmas))
        self._known.update(zip(levels, map(tuple, torch.stack([a, b], 1).tolist())))
