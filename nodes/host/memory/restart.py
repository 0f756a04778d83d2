"""Running a block or a step a second time from the same start: random numbers, weights, and what patches remember."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, autocast

from .arguments import Arguments
from .patch_state import PatchState

if TYPE_CHECKING:
    from ..autograd.layers import Groups


class RandomState:
    """The random generators' state at the start of a call."""

    def __init__(self, device: torch.device) -> None:
        module = None if device.type == "cpu" else getattr(torch, device.type, None)
        index: tuple = () if device.type == "mps" else (device,)  # there is only one MPS device
        self._generators: list[tuple[Callable[..., Tensor], Callable[..., Any], tuple]] = [
            (torch.get_rng_state, torch.set_rng_state, ())
        ]
        if module is not None and hasattr(module, "get_rng_state"):
            self._generators.append((module.get_rng_state, module.set_rng_state, index))
        self._state: list[Tensor] | None = self._now()

    def restore(self) -> None:
        if self._state is not None:
            self._set(self._state)

    def forget_if_unused(self) -> None:
        """After the call: drop the state if nothing was drawn, so that `again` has nothing to do."""
        if self._state is not None and all(map(torch.equal, self._state, self._now())):
            self._state = None

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """While active, the generators continue from the saved state; afterwards from where they were."""
        if self._state is None:
            yield
            return
        now = self._now()
        try:
            self._set(self._state)
            yield
        finally:
            self._set(now)

    def _now(self) -> list[Tensor]:
        return [get_state(*index) for get_state, _, index in self._generators]

    def _set(self, states: list[Tensor]) -> None:
        for (_, set_state, index), state in zip(self._generators, states):
            set_state(state, *index)


class StartOfCall:
    """What one call of a block starts from."""

    def __init__(self, arguments: Arguments, patches: PatchState, groups: Groups | None, device: torch.device) -> None:
        self.arguments = arguments
        self.random = RandomState(device)
        self._patches = patches
        self._remembered = patches.read() if patches else None
        self._groups = groups
        self._weights = None if groups is None else groups.current
        self._autocast = _autocast(device)

    @contextlib.contextmanager
    def again(self, written: set[int]) -> Iterator[tuple[tuple, dict]]:
        """Yield (args, kwargs) for a second call, and restore the start around it. See `Arguments.again`."""
        if self._groups is not None and self._groups.current is not self._weights:
            self._groups.use(self._weights)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            self._autocast(),
            self.random.again(),
            self._patches_as_then(),
        ):
            yield self.arguments.again(written)

    @contextlib.contextmanager
    def _patches_as_then(self) -> Iterator[None]:
        if self._remembered is None:
            yield
            return
        now = self._patches.read()
        try:
            self._patches.write(self._remembered)
            yield
        finally:
            self._patches.write(now)


class StartOfStep:
    """What a guided step starts from besides its arguments."""

    def __init__(self, model_options: dict, device: torch.device, network: frozenset[int]) -> None:
        """network: ids of the model's modules."""
        self._random = RandomState(device)
        self._patches = PatchState([model_options], network)
        self._remembered = self._patches.read()

    def restore(self) -> None:
        self._random.restore()
        self._patches.write(self._remembered)


def _autocast(device: torch.device) -> Callable[[], AbstractContextManager]:
    """The autocast in force: backward may run in a thread of its own, which does not inherit it."""
    try:
        enabled = torch.is_autocast_enabled(device.type)
    except RuntimeError:  # a device for which PyTorch has no autocast (MPS before 2.5)
        enabled = False
    if not enabled:
        return contextlib.nullcontext
    dtype = torch.get_autocast_dtype(device.type)
    return lambda: autocast(device.type, dtype=dtype)
