"""Weight hooks (Create Hook LoRA, ...): the host swaps weights in place between the parts of one evaluation.

The conditionings of an evaluation are grouped by their hooks; before each group's part the host's patcher writes that
group's weights into the model. Backward then has to see, for each layer call, the weights of the group it was made
with: the call notes the patcher's current group, and its VJP has the patcher apply that group again where another one
is in place. Backward visits the groups one after the other, so that is one swap per group.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn


class WeightGroups:
    """Which group of hooks the patcher has written into its model, and a way back to another one."""

    def __init__(self, patcher):
        self.patcher = patcher
        self._others: list[tuple[dict, str, torch.Tensor]] = []  # parameters that graphs hold themselves

    @property
    def current(self):
        return self.patcher.current_hooks

    def use(self, group) -> None:
        self.patcher.patch_hooks(group)

    @contextlib.contextmanager
    def followed(self, installed, others: list[nn.Module]):
        """For the time of the block: swaps in inference mode, and none that changes what a graph has saved.

        installed: what puts our forwards on the modules; the host takes injected forwards off and puts them on again
        around a swap, so ours make room. others: modules whose parameters the graph holds themselves.
        """
        patcher, patch = self.patcher, self.patcher.patch_hooks
        if patcher.current_hooks is not None:
            patch(None)
        self._find(others)

        def patch_hooks(hooks):
            self._renew()
            injected = patcher.is_injected
            if injected:
                installed.take()
            try:
                with torch.inference_mode():
                    patch(hooks)
            finally:
                if injected:
                    installed.put()

        patcher.patch_hooks = patch_hooks
        try:
            yield
        finally:
            del patcher.patch_hooks
            if self._others:
                with torch.inference_mode():
                    patch(None)  # into the copies: the parameters behind them were never changed
            for table, name, theirs in self._others:
                table[name] = theirs
            self._others = []

    def _find(self, others: list[nn.Module]) -> None:
        held = {id(module) for module in others}
        for key in {key for patches in self.patcher.hook_patches.values() for key in patches}:
            path, _, name = key.rpartition(".")
            module = self.patcher.model.get_submodule(path)
            if id(module) in held and module._parameters.get(name) is not None:
                self._others.append((module._parameters, name, module._parameters[name]))

    def _renew(self) -> None:
        """Fresh copies of parameters that a graph may have saved, for the host to write into."""
        with torch.inference_mode(False):
            for table, name, _ in self._others:
                table[name] = nn.Parameter(table[name].detach().clone(), requires_grad=False)
