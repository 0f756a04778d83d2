"""Finds what cuts the gradient off inside a network.

A kernel without a backward pass returns a tensor without a graph. Where a residual goes around it nothing fails: the
gradient is only wrong. So the first guided evaluation of a run looks at each module: if its input has a graph and its
output has none, the module is called again with another input, and if the output changes, a gradient is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def gradient_watch(models: Iterable[nn.Module]):
    """For the time of the block, a call of a module that cuts the gradient off is a ValueError naming it."""
    modules = {id(module): module for model in models for module in model.modules()}.values()
    handles = [module.register_forward_hook(_look, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _look(module: nn.Module, args: tuple, kwargs: dict, output) -> None:
    if not torch.is_grad_enabled() or any(tensor.requires_grad for tensor in _floats(output)):
        return
    inputs = [tensor for tensor in _floats([*args, *kwargs.values()]) if tensor.requires_grad]
    if not inputs or not _floats(output) or not _depends(module, args, kwargs, output):
        return
    kind = type(module)
    raise ValueError(
        f"GradPaint can't differentiate through this model: {kind.__module__}.{kind.__name__} has no "
        "gradient (a kernel without a backward pass: an engine, a quantisation or an attention of another "
        "library). Take the node that installs it out of this model's path, or set gradient to x0, which "
        "needs none"
    )


def _depends(module: nn.Module, args: tuple, kwargs: dict, output) -> bool:
    """Whether other inputs give another output; position embeddings, for one, only look at shapes."""

    def other(value):
        if isinstance(value, Tensor) and value.requires_grad:
            return value.detach() * 1.5 + 0.25
        return type(value)(map(other, value)) if type(value) in (list, tuple) else value

    with torch.no_grad():
        found = module.forward(*map(other, args), **{key: other(value) for key, value in kwargs.items()})
    return any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(_floats(output), _floats(found)))


def _floats(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _floats(item)]
    return _floats(list(value.values())) if type(value) is dict else []
