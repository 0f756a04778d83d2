"""How eq. 9's displacement reaches the sampler's next state, whatever the sampler.

Where the dry run (see `probe`) found the sampler's own state within reach, that is moved: exactly eq. 9. Where it is
not, the estimate is shifted so that the sampler's step moves the state: with the echo in its history canceled where
the dry run measured that (see `history_shift`), else by Euler's response.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....gradpaint.method.plan import Step
from .history_shift import HistoryShift
from .probe import CallMap


class StateMover:
    """Made once per run; told each model call that begins a step."""

    def __init__(self, call_map: CallMap | None) -> None:
        self.in_place = call_map is not None and call_map.in_place
        self._reported = call_map is not None and call_map.reported
        effects = None if call_map is None else call_map.effects
        self._history = None if effects is None else HistoryShift(effects)
        self._pending: Tensor | None = None  # a displacement, waiting for the state that it belongs to
        self._state_ptr: int | None = None

    def arrive(self, x: Tensor) -> None:
        """A step begins at x, the sampler's own tensor where in_place: move it now."""
        if self._pending is not None:
            x += self._pending  # this is eq. 9's x_next
            self._pending = None

    def depart(self, x: Tensor, estimate: Tensor, step: Step, displacement: Tensor | None) -> Tensor:
        """The estimate that the sampler gets, so that the state that it produces is displaced.

        Args:
            x: The state, as the model was given it.
            estimate: As the method wants the sampler to have it.
            step: The one that begins.
            displacement: Of the next state, None for none.
        """
        self._state_ptr = x.data_ptr()
        if self.in_place:
            self._pending = self._pending if displacement is None else displacement
            return estimate
        if self._history is not None:
            shift = self._history.shift(step.index, displacement)
        elif displacement is not None:
            # Nothing known of the sampler: Euler's response, at least a half, so that no shift is far beyond eq. 9.
            shift = displacement / max(1 - step.sigma_next / step.sigma, 0.5)
        else:
            shift = None
        return estimate if shift is None else estimate + shift

    def is_given_copies(self, x: Tensor) -> bool:
        """Whether x, which the sampler reports as its state, is not the tensor that the model was given."""
        return self.in_place and self._reported and x.data_ptr() != self._state_ptr

    def shift_from_here(self, history: bool) -> None:
        """The states are out of reach from here on. history: the call map still holds."""
        self.in_place, self._pending = False, None
        self._history = self._history if history else None

    def settle(self, samples: Tensor, model_sampling: Any, sigma: Tensor) -> Tensor:
        """The samples with the last step's displacement. sigma: the run's last level."""
        if self._pending is None:
            return samples
        back, pending = model_sampling.inverse_noise_scaling, self._pending
        self._pending = None
        return samples + (back(sigma, pending) - back(sigma, torch.zeros_like(pending)))
