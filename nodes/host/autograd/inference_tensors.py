"""Inference tensors: the host creates them in inference mode, and autograd refuses to save them for a backward pass.

There are three remedies, all exact: run what needs no graph in the host's own mode (`in_host_mode`), view the same
memory through an ordinary tensor (`alias`), or make a copy (`ordinary`). `OrdinaryArguments` applies them to every
operation, so that tensors which a patch keeps where nobody else can find them (closures, attributes) can be saved too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Result = TypeVar("Result")


def alias(tensor: Tensor) -> Tensor:
    """Return an ordinary tensor over the memory of an inference tensor; any other tensor is returned as is.

    No copy is made, so `tensor` has to stay alive and unchanged. Tensor subclasses (quantized weights) have no memory
    of their own and are returned as they are.
    """
    if not tensor.is_inference() or type(tensor) not in (Tensor, nn.Parameter):
        return tensor
    source = tensor.detach() if tensor.requires_grad else tensor
    if not torch.is_inference_mode_enabled():
        return _same_memory(source)
    with torch.inference_mode(False):
        return _same_memory(source)


def _same_memory(source: Tensor) -> Tensor:
    return source.new_empty(0).set_(source)  # type: ignore[call-overload]  # PyTorch's stubs lack set_(Tensor)


def in_host_mode(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Call the function in inference mode, where the host may write to the buffers it made there.

    The result is an ordinary tensor unless inference mode was on already (in a plain step).
    """
    if torch.is_inference_mode_enabled():
        return function(*args, **kwargs)
    with torch.inference_mode():
        out = function(*args, **kwargs)
    return alias(out) if isinstance(out, Tensor) else out  # type: ignore[return-value]  # a Tensor for a Tensor


def ordinary(value: Any) -> Any:
    """Copy nested dicts, lists, tuples and conditioning objects so that they contain no inference tensors.

    Ordinary tensors and unknown objects are passed on as they are.
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
    if hasattr(value, "_copy_with") and hasattr(value, "cond"):  # comfy.conds.CONDRegular and its subclasses
        return value._copy_with(ordinary(value.cond))
    return value


class OrdinaryArguments(TorchFunctionMode):
    """While active, operations that enter the graph get ordinary tensors in place of inference tensors.

    Parameters stay where they are and are aliased. Anything else may be a buffer that gets reused, so it is copied.
    Values without a gradient are written to an inference tensor in inference mode, where that is allowed.
    """

    # A C function on purpose: it is called for every argument of every operation.
    _unsafe: Callable[[Tensor], bool] = staticmethod(Tensor.is_inference)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        # Nearly all calls, thousands per step, end in this method, so they go through no helper.
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

    def _call(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        writes = bool(args) and isinstance(args[0], Tensor) and _writes(func)
        if torch.is_grad_enabled() and _any((*args, *kwargs.values()), _requires_grad):
            target = args[:1] if writes else ()  # the tensor that is written to is never copied
            args = (*target, *self._replace(list(args[len(target) :])))
            kwargs = {key: value if key == "out" else self._replace(value) for key, value in kwargs.items()}
        elif writes and args[0].is_inference():
            with torch.inference_mode():
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _replace(self, value: Any) -> Any:
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
    """For a layer with its own weight scheme: its graph starts at its input and saves copies of expanded weights."""

    @staticmethod
    def _unsafe(tensor: Tensor) -> bool:
        return not tensor.requires_grad or isinstance(tensor, nn.Parameter)

    def _replacement(self, tensor: Tensor) -> Tensor:
        return tensor.detach().clone()


class AffineVjp(CopiedArguments):
    """For the VJP of an affine layer through its own forward: only the graph matters, not the values.

    So products with a weight are not computed. The layer releases its buffers before backward runs, so they are copied.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.linear and len(args) > 1 and not kwargs:
            x, weight = args[:2]
            if x.requires_grad and type(weight) in (Tensor, nn.Parameter) and self._unsafe(weight):
                return _LinearInX.apply(x, self._replacement(weight))
        return super().__torch_function__(func, types, args, kwargs)

    def _replacement(self, tensor: Tensor) -> Tensor:
        return alias(tensor.detach()) if isinstance(tensor, nn.Parameter) else tensor.clone()


class _LinearInX(torch.autograd.Function):
    """Has the derivative of x @ weight.T, without computing its value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.weight = weight
        return x.new_zeros(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.weight, None


def _requires_grad(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _any(values: Iterable, condition: Callable[[Tensor], bool]) -> bool:
    for value in values:
        if isinstance(value, Tensor):
            if condition(value):
                return True
        elif type(value) in (list, tuple) and _any(value, condition):
            return True
    return False


def _writes(func: Callable) -> bool:
    name = getattr(func, "__name__", "")
    return name in ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__") or (
        name.endswith("_") and not name.endswith("__")
    )
