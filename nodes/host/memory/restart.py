"""Running a block or a step a second time from the same start: random numbers and what patches remember."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from .patch_state import PatchState


class RandomState:
    """The generators' state at a call, kept only if the call drew from them."""

    def __init__(self, device: torch.device):
        module = None if device.type == "cpu" else getattr(torch, device.type, None)
        where = () if device.type == "mps" else (device,)  # there is but one of those
        self._device = [(module.get_rng_state, module.set_rng_state, where)] if hasattr(module, "get_rng_state") else []
        self.state = self._now()

    def restore(self) -> None:
        self._set(self.state)

    def _now(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(get(*where) for get, _, where in self._device)]

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for (_, put, where), state in zip(self._device, states[1:]):
            put(state, *where)

    def keep_if_used(self) -> None:
        if all(map(torch.equal, self.state, self._now())):
            self.state = None

    @contextlib.contextmanager
    def again(self):
        if self.state is None:
            yield
            return
        now = self._now()
        try:
            self._set(self.state)
            yield
        finally:
            self._set(now)


class StartOfStep:
    """What a guided step starts from besides its arguments. network: ids of the model's modules."""

    def __init__(self, model_options: dict, device: torch.device, network: frozenset[int]):
        self._random = RandomState(device)
        self._patches = PatchState([model_options], network)
        self._remembered = self._patches.read()

    def restore(self) -> None:
        self._random.restore()
        self._patches.write(self._remembered)
