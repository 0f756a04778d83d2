"""Finds the blocks of any network that can be recomputed one at a time, without a list of families.

Networks keep their repeated parts in ModuleList, ModuleDict or Sequential. Every element of those that has parts and
parameters of its own is a candidate. Which candidates are really called is only known at run time (the host's UNet
never calls its Sequentials but their layers), so nested ones are returned too: the outermost that is called counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
CONTAINER_SHARE = 0.9  # a candidate whose inner candidates hold this much of its parameters only groups them
MODEL_SHARE = 0.5  # recomputing a candidate that holds more of the model than this would save next to nothing


def find_blocks(models: Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    """(name, module) of every candidate, outer ones before those inside them, each module once."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for model in models:
        total = _size(model)
        for name, module in _elements(model):
            inner = _outermost(module)
            grouped = sum(map(_size, inner))
            groups = len(inner) > 1 and grouped >= CONTAINER_SHARE * _size(module)
            if groups or (inner and _size(module) > MODEL_SHARE * total):
                continue
            found.setdefault(id(module), (name, module))
    return list(found.values())


def _elements(model: nn.Module) -> list[tuple[str, nn.Module]]:
    in_lists = {id(child) for module in model.modules() if isinstance(module, LISTS) for child in module.children()}
    return [(name, module) for name, module in model.named_modules() if id(module) in in_lists and _has_parts(module)]


def _outermost(module: nn.Module) -> list[nn.Module]:
    """The candidates inside a module that lie in no other candidate inside it."""
    found = []
    for child in module.children():
        if isinstance(module, LISTS) and _has_parts(child):
            found.append(child)
        else:
            found.extend(_outermost(child))
    return found


def _has_parts(module: nn.Module) -> bool:
    """Whether it is a module that can be called, with parts, at least one of which has parameters."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return False
    return next(module.children(), None) is not None and next(module.parameters(), None) is not None


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
