"""Finds the blocks of any network that can be recomputed one at a time, without a list of model families.

Networks keep their repeated pieces in a ModuleList, ModuleDict or Sequential. Every element of those that has
submodules and parameters is a candidate. Which candidates are actually called is known only at run time (the host's
UNet never calls its Sequentials, only their layers), so nested ones are returned too: the outermost one called counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
CONTAINER_SHARE = 0.9  # a candidate whose inner candidates hold this share of its parameters merely groups them
MODEL_SHARE = 0.5  # recomputing a candidate with a larger share of the model's parameters would save next to nothing


def find_blocks(models: Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of every candidate, each once, outer ones before those inside them."""
    blocks: dict[int, tuple[str, nn.Module]] = {}
    for model in models:
        total = _size(model)
        for name, module in _elements(model):
            inner = _outermost(module)
            inner_size = sum(map(_size, inner))
            groups = len(inner) > 1 and inner_size >= CONTAINER_SHARE * _size(module)
            if groups or (inner and _size(module) > MODEL_SHARE * total):
                continue
            blocks.setdefault(id(module), (name, module))
    return list(blocks.values())


def _elements(model: nn.Module) -> list[tuple[str, nn.Module]]:
    in_lists = {id(child) for module in model.modules() if isinstance(module, LISTS) for child in module.children()}
    return [(name, module) for name, module in model.named_modules() if id(module) in in_lists and _is_block(module)]


def _outermost(module: nn.Module) -> list[nn.Module]:
    """The candidates inside a module that are in no other candidate inside it."""
    candidates = []
    for child in module.children():
        if isinstance(module, LISTS) and _is_block(child):
            candidates.append(child)
        else:
            candidates.extend(_outermost(child))
    return candidates


def _is_block(module: nn.Module) -> bool:
    """Whether it can be called, and has submodules and parameters."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return False
    return next(module.children(), None) is not None and next(module.parameters(), None) is not None


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
