"""Inference tensors: what the host makes in inference mode, and autograd refuses to save for a backward pass.

Three ways out, each exact: run what needs no graph in the host's own mode (`in_host_mode`), look at the same memory
through an ordinary tensor (`alias`), or take a copy (`ordinary`). `OrdinaryArguments` does it for any operation, so
that tensors which a patch holds in places nobody else knows of (closures, attributes) can be saved too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def alias(tensor: Tensor) -> Tensor:
    """An ordinary tensor over the memory of `tensor`, which it must outlive unchanged; `tensor` itself if it is one.

    No copy is made. Tensor subclasses (quantised weights) have no memory of their own and are returned as they are.
    """
    if not tensor.is_inference() or type(tensor) not in (Tensor, nn.Parameter):
        return tensor
    source = tensor.detach() if tensor.requires_grad else tensor
    if not torch.is_inference_mode_enabled():
        return source.new_empty(0).set_(source)
    with torch.inference_mode(False):
        return source.new_empty(0).set_(source)


def in_host_mode(function: Callable[..., Tensor], *args, **kwargs) -> Tensor:
    """function(...) in inference mode, where the host may write into the buffers it made there; an ordinary tensor.

    In inference mode already (a plain step) nothing is done but the call.
    """
    if torch.is_inference_mode_enabled():
        return function(*args, **kwargs)
    with torch.inference_mode():
        out = function(*args, **kwargs)
    return alias(out) if isinstance(out, Tensor) else out


def ordinary(value):
    """A copy of nested dicts, lists, tuples and conditioning objects in which no tensor is an inference tensor.

    Inference tensors may not be saved for backward. Ordinary tensors and unknown objects are passed on as they are.
    """
    if isinstance(value, Tensor):
        if not value.is_inference():
            return value
        with torch.inference_mode(False):
            return value.clone()
    if type(value) is dict:
        return {key: ordinary(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(ordinary(item) for item in value)
    if hasattr(value, "_copy_with") and hasattr(value, "cond"):  # comfy.conds.CONDRegular and its kin
        return value._copy_with(ordinary(value.cond))
    return value


class OrdinaryArguments(TorchFunctionMode):
    """While active, operations that enter the graph get ordinary tensors in place of inference tensors.

    Parameters stay where they are and are aliased; anything else may be a buffer that is used again, and is copied.
    Writing into an inference tensor what has no gradient happens in inference mode, where it is allowed.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # Nearly all calls end here: thousands a step, so no helper is called for them.
        unsafe = self._unsafe
        for value in args:
            if isinstance(value, Tensor):
                if unsafe(value):
                    break
            elif isinstance(value, (list, tuple)) and _any(value, unsafe):
                break
        else:
            if not kwargs:
                return func(*args)
            if not _any(kwargs.values(), unsafe):
                return func(*args, **kwargs)
        return self._call(func, args, kwargs or {})

    def _call(self, func, args, kwargs):
        writes = bool(args) and isinstance(args[0], Tensor) and _writes(func)
        if torch.is_grad_enabled() and _any((*args, *kwargs.values()), _requires_grad):
            target = args[:1] if writes else ()  # never a copy of what is written to
            args = (*target, *self._replace(list(args[len(target) :])))
            kwargs = {key: value if key == "out" else self._replace(value) for key, value in kwargs.items()}
        elif writes and args[0].is_inference():
            with torch.inference_mode():
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    _unsafe = staticmethod(Tensor.is_inference)

    def _replace(self, value):
        if isinstance(value, Tensor):
            if not self._unsafe(value):
                return value
            return self._replacement(value)
        if type(value) in (list, tuple):
            return type(value)(map(self._replace, value))
        return {key: self._replace(item) for key, item in value.items()} if type(value) is dict else value

    def _replacement(self, tensor: Tensor) -> Tensor:
        return alias(tensor) if isinstance(tensor, nn.Parameter) else tensor.clone()


class CopiedArguments(OrdinaryArguments):
    """For a layer with a weight scheme of its own: the graph begins at its input, and saves copies of what its weights
    are made into.
    """

    @staticmethod
    def _unsafe(tensor: Tensor) -> bool:
        return not tensor.requires_grad or isinstance(tensor, nn.Parameter)

    def _replacement(self, tensor: Tensor) -> Tensor:
        return tensor.detach().clone()


class AffineVjp(CopiedArguments):
    """For the VJP of a layer that is affine in its input, by its own forward: the values don't matter, only the graph.

    So a product with a weight is not computed. The layer gives its buffers back before backward runs: all are copied.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and len(args) > 1 and not kwargs:
            x, weight = args[:2]
            if x.requires_grad and type(weight) in (Tensor, nn.Parameter) and self._unsafe(weight):
                return _LinearInX.apply(x, self._replacement(weight))
        return super().__torch_function__(func, types, args, kwargs)

    def _replacement(self, tensor: Tensor) -> Tensor:
        return alias(tensor.detach()) if isinstance(tensor, nn.Parameter) else tensor.clone()


class _LinearInX(torch.autograd.Function):
    """The derivative of x @ weight.T at no cost for its value."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.weight = weight
        return x.new_zeros(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad @ ctx.weight, None


def _requires_grad(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _any(values, holds: Callable[[Tensor], bool]) -> bool:
    for value in values:
        if isinstance(value, Tensor):
            if holds(value):
                return True
        elif type(value) in (list, tuple) and _any(value, holds):
            return True
    return False


def _writes(func: Callable) -> bool:
    name = getattr(func, "__name__", "")
    return name in ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__") or (
        name.endswith("_") and not name.endswith("__")
    )
