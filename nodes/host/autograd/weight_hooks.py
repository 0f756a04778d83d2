"""Weight hooks (Create Hook LoRA, ...): the host swaps weights in place in the middle of an evaluation.

An evaluation's conditionings are grouped by their hooks, and before each group the host's patcher writes that group's
weights into the model. The backward pass has to see, for each layer call, the weights the call was made with: the call
notes the patcher's current group, and its VJP has the patcher apply that group again if a different one is in place.
Backward visits the groups one after the other, so that is one swap per group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class Removable(Protocol):
    """Forwards of ours that can be taken off the modules for a while."""

    def put_on(self) -> None: ...

    def take_off(self) -> None: ...


class WeightGroups:
    """Which group of hooks the patcher has written into its model, and a way to return to another one."""

    def __init__(self, patcher: ModelPatcher) -> None:
        self._patcher = patcher
        self._copied: list[tuple[dict[str, Any], str, nn.Parameter]] = []  # (table, name, original)

    @property
    def current(self) -> Any:
        """The patcher's current HookGroup, None where no hooks apply."""
        return self._patcher.current_hooks

    def use(self, group: Any) -> None:
        self._patcher.patch_hooks(group)

    @contextlib.contextmanager
    def followed(self, layers: Removable, others: list[nn.Module]) -> Iterator[None]:
        """Inside the block, swap weights in inference mode and never change what a graph has saved.

        Args:
            layers: our forwards on the modules. The host takes injected forwards off and puts them back around a swap,
                so ours have to make room.
            others: modules whose parameters the graph holds itself.
        """
        patcher, patch = self._patcher, self._patcher.patch_hooks
        if patcher.current_hooks is not None:
            patch(None)
        self._copied = self._hooked_parameters(others)

        def patch_hooks(hooks: Any) -> None:
            self._copy_parameters()
            injected = patcher.is_injected
            if injected:
                layers.take_off()
            try:
                with torch.inference_mode():
                    patch(hooks)
            finally:
                if injected:
                    layers.put_on()

        patcher.patch_hooks = patch_hooks
        try:
            yield
        finally:
            del patcher.patch_hooks
            if self._copied:
                with torch.inference_mode():
                    patch(None)  # restores the copies: the original parameters were never changed
            for table, name, original in self._copied:
                table[name] = original
            self._copied = []

    def _hooked_parameters(self, others: list[nn.Module]) -> list[tuple[dict[str, Any], str, nn.Parameter]]:
        """Those parameters of `others` that hooks write to."""
        parameters: list[tuple[dict[str, Any], str, nn.Parameter]] = []
        held = {id(module) for module in others}
        for key in {key for patches in self._patcher.hook_patches.values() for key in patches}:
            path, _, name = key.rpartition(".")
            module = self._patcher.model.get_submodule(path)
            parameter = module._parameters.get(name)
            if id(module) in held and parameter is not None:
                parameters.append((module._parameters, name, parameter))
        return parameters

    def _copy_parameters(self) -> None:
        """Replace parameters that a graph may have saved with fresh copies for the host to write to."""
        with torch.inference_mode(False):
            for table, name, _ in self._copied:
                table[name] = nn.Parameter(table[name].detach().clone(), requires_grad=False)
