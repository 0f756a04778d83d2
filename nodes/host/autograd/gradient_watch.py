"""Finds the module inside a network that drops the gradient.

A kernel without a backward pass returns a tensor without a graph. Where a residual connection bypasses it nothing
fails; the gradient is just wrong. So the first guided evaluation of a run checks each module: if its input has a graph
and its output has none, the module is called again with a different input, and if its output changes, a gradient is
missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def gradient_watch(models: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block, raise ValueError naming the module as soon as one of the models' modules drops the gradient."""
    modules = {id(module): module for model in models for module in model.modules()}.values()
    handles = [module.register_forward_hook(_check, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
    if not torch.is_grad_enabled() or any(tensor.requires_grad for tensor in _float_tensors(output)):
        return
    inputs = [tensor for tensor in _float_tensors([*args, *kwargs.values()]) if tensor.requires_grad]
    if not inputs or not _float_tensors(output) or not _depends_on_input(module, args, kwargs, output):
        return
    kind = type(module)
    raise ValueError(
        f"GradPaint can't differentiate through this model: {kind.__module__}.{kind.__name__} has no gradient. It "
        "probably runs a kernel without a backward pass (an engine, or another library's quantization or attention). "
        "Take the node that installs it out of this model's path, or set gradient to x0, which needs none"
    )


def _depends_on_input(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> bool:
    """Whether a different input changes the output. Position embeddings, for one, only look at shapes."""

    def changed(value: Any) -> Any:
        if isinstance(value, Tensor) and value.requires_grad:
            return value.detach() * 1.5 + 0.25
        return type(value)(map(changed, value)) if type(value) in (list, tuple) else value

    with torch.no_grad():
        other = module.forward(*map(changed, args), **{key: changed(value) for key, value in kwargs.items()})
    pairs = zip(_float_tensors(output), _float_tensors(other))
    return any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairs)


def _float_tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _float_tensors(item)]
    return _float_tensors(list(value.values())) if type(value) is dict else []
