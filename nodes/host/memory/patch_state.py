"""What user patches remember between calls, so that an evaluation can be run again without them noticing.

A patch may count its calls, or keep one block's tensors for a later one. Running a block or a step a second time must
start from what the patch knew the first time, and must leave no trace. Covered are closure variables, attributes of
functions and of the objects they belong to, and the dicts, lists and sets these hold.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable
from typing import Any

import torch

# Our own wrappers look after themselves; what the host and PyTorch remember (what is loaded where) belongs to no patch.
NOT_PATCHES = (__name__.split(".nodes.")[0] + ".", "comfy.", "comfy_aimdo", "comfy_kitchen", "torch")
DEPTH = 8  # steps from model_options to the patches in it, to what they refer to, and so on
MAX_ENTRIES = 512  # larger containers are data, not state
MAX_OBJECTS = 5000  # looked at in all
_STATELESS = (torch.Tensor, str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)
_EMPTY = object()


class PatchState:
    """The mutable places that patches refer to; their contents can be read and written back."""

    def __init__(self, patches: Iterable, ignored: frozenset[int] = frozenset()) -> None:
        """Find the places.

        Args:
            patches: callables, or containers with callables in them.
            ignored: ids of objects that are no patches (the model's modules).
        """
        self._cells: list[types.CellType] = []
        self._containers: list[dict | list | set] = []
        self._seen = set(ignored)
        self._max_seen = MAX_OBJECTS + len(ignored)
        self._visit_items(patches, DEPTH)

    def __bool__(self) -> bool:
        return bool(self._cells or self._containers)

    def read(self) -> list:
        """Return the places' contents. Containers are copied, the objects in them are not."""
        return [_content(cell) for cell in self._cells] + [_copied(container) for container in self._containers]

    def write(self, contents: list) -> None:
        """Put back what `read` returned. Places whose content has not changed are not touched."""
        for cell, content in zip(self._cells, contents):
            if content is not _EMPTY and _content(cell) is not content:
                cell.cell_contents = content
        for container, content in zip(self._containers, contents[len(self._cells) :]):
            _restore(container, content)

    def _visit(self, value: Any, depth: int) -> None:
        if depth < 0 or isinstance(value, _STATELESS) or id(value) in self._seen or len(self._seen) >= self._max_seen:
            return
        self._seen.add(id(value))
        if isinstance(value, types.MethodType):
            self._visit_items((value.__self__, value.__func__), depth)
        elif isinstance(value, types.FunctionType):
            self._visit_function(value, depth)
        elif isinstance(value, functools.partial):
            self._visit_items((value.func, *value.args, *value.keywords.values()), depth)
        elif isinstance(value, (dict, list, set)):
            self._add(value, depth)
        elif isinstance(value, tuple):
            self._visit_items(value, depth)
        elif isinstance(value, torch.nn.Module):  # its own attributes, not the modules below it
            self._containers.append(vars(value))
            self._visit_items([item for name, item in vars(value).items() if not name.startswith("_")], depth)
        elif isinstance(getattr(value, "__dict__", None), dict) and not _is_no_patch(type(value)):
            self._add(vars(value), depth)

    def _visit_function(self, function: types.FunctionType, depth: int) -> None:
        for cell in function.__closure__ or ():
            if not _is_no_patch(function) and id(cell) not in self._seen:
                self._seen.add(id(cell))
                self._cells.append(cell)
            self._visit(_content(cell), depth - 1)
        if not _is_no_patch(function):
            self._visit_items(function.__defaults__ or (), depth)
            self._add(vars(function), depth)

    def _add(self, container: dict | list | set, depth: int) -> None:
        if len(container) <= MAX_ENTRIES:
            self._containers.append(container)
            self._visit_items(list(container.values()) if isinstance(container, dict) else list(container), depth)

    def _visit_items(self, items: Iterable, depth: int) -> None:
        for item in items:
            self._visit(item, depth - 1)


def _is_no_patch(function_or_class: Any) -> bool:
    return (function_or_class.__module__ or "").startswith(NOT_PATCHES)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _copied(container: Any) -> Any:
    return dict(container) if isinstance(container, dict) else container.copy()


def _restore(container: Any, content: Any) -> None:
    if isinstance(container, dict):
        for key in [key for key in container if key not in content]:
            del container[key]
        for key, value in content.items():
            if container.get(key, _EMPTY) is not value:
                container[key] = value
    elif isinstance(container, list):
        if len(container) != len(content) or any(a is not b for a, b in zip(container, content)):
            container[:] = content
    elif container != content:
        container.clear()
        container.update(content)
