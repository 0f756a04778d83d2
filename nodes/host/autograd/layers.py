"""A model's layers during a guided run: forwards whose backward pass asks the host for the weight again.

No weight is saved for backward. Everything that touches an offloaded weight runs in inference mode, like the host's own
evaluation: its buffers for such weights were created there and can only be written there.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import comfy.model_management
import comfy.ops
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import Convolution, input_gradient
from .inference_tensors import AffineVjp, CopiedArguments, alias, in_host_mode

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
QUANTIZED = getattr(comfy.ops, "QuantizedTensor", ())
CLAMPS_ITS_INPUT = getattr(getattr(comfy.ops, "fp8_ops", None), "Linear", ())
Forward = Callable[..., Tensor]
Vjp = Callable[[Tensor, torch.Size], Tensor]


class Groups(Protocol):
    """Which of several sets of weights a model has at the moment; see weight_hooks.WeightGroups."""

    @property
    def current(self) -> Any:
        """The set in place."""

    def use(self, group: Any) -> None:
        """Put another set in place."""


class NoGroups:
    """For a model whose weights stay the same throughout an evaluation."""

    current = None

    def use(self, group: Any) -> None:
        """Do nothing: there is only one set."""


def guided_methods(module: nn.Module, groups: Groups | None = None) -> dict[str, Forward]:
    """Return the methods, by name, that replace the module's own during a run.

    Args:
        module: any module of the network.
        groups: for a model whose weights change within an evaluation; a VJP uses the weights its call was made with.
    """
    groups = NoGroups() if groups is None else groups
    casts = isinstance(module, comfy.ops.CastWeightBiasOp)  # all of the host's layers, subclasses of nn.Linear or not
    if casts and hasattr(module, "expert_linear"):
        return {"expert_linear": _expert_forward(module, cast(Forward, module.expert_linear), groups)}
    make_forward = _forward_maker(module, casts)
    if make_forward is not None:
        return {"forward": make_forward(module, module.forward, groups)}
    if casts:  # other packs' norms; embeddings take integers, so no gradient passes through them
        return {"forward": _copying_forward(module.forward)}
    return {}


def _forward_maker(module: nn.Module, casts: bool) -> Callable[..., Forward] | None:
    """The function below that makes the module's guided forward; None if the module keeps its own."""
    home = type(module).__module__
    host_layer = (home == "comfy.ops" or home.startswith("torch.")) and "forward" not in vars(module)
    if isinstance(module, nn.Linear) or (casts and hasattr(module, "in_features")):
        return _linear_forward if host_layer else _affine_forward
    if isinstance(module, CONVOLUTIONS) or (casts and hasattr(module, "kernel_size")):
        plain = host_layer and not module.transposed and module.padding_mode == "zeros"
        return _convolution_forward if plain and not isinstance(module.padding, str) else _affine_forward
    if isinstance(module, NORMS) and host_layer:
        return _norm_forward
    if casts and isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training:
        return _affine_forward
    return None


class _LeafFunction(torch.autograd.Function):
    """y = forward(x), with `vjp(grad_y, shape_of_x)` as the gradient of x. Saves no tensor.

    resident: the layer's weight is on x's device, so no offloading buffer is involved and inference mode not needed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Forward, vjp: Vjp, groups: Groups, resident: bool = False) -> Tensor:
        ctx.vjp, ctx.shape, ctx.dtype, ctx.resident = vjp, x.shape, x.dtype, resident
        ctx.groups, ctx.group = groups, groups.current
        x = x.detach()  # the host's quantized layers treat inputs with gradients differently
        return forward(x) if resident else in_host_mode(forward, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if ctx.groups.current is not ctx.group:
            ctx.groups.use(ctx.group)
        if ctx.resident:
            return ctx.vjp(grad, ctx.shape).to(ctx.dtype), None, None, None, None
        with torch.inference_mode():
            out = ctx.vjp(grad, ctx.shape).to(ctx.dtype)
        return alias(out), None, None, None, None


@contextlib.contextmanager
def layer_parameters(module: nn.Module, like: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield (weight, bias) as the layer's forward would use them now, in `like`'s dtype and on its device.

    They may be in a buffer that the next layer overwrites, so copy what has to last. Enter it in inference mode.
    """
    if not isinstance(module, comfy.ops.CastWeightBiasOp):
        weight, bias = cast(Tensor, module.weight), getattr(module, "bias", None)
        to = (like.device, like.dtype)
        yield weight.to(*to), None if bias is None else bias.to(*to)
        return
    weight, bias, stream = comfy.ops.cast_bias_weight(module, like, offloadable=True)
    try:
        yield weight, bias
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def _dense(weight: Tensor) -> Tensor:
    return weight.dequantize() if isinstance(weight, QUANTIZED) else weight


def _needs_graph(x: Any) -> bool:
    return torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad


def _copying_forward(forward: Forward) -> Forward:
    """The layer's own forward, with a graph that saves only copies. Good for any layer with small weights."""

    def guided(x: Any, *args: Any, **kwargs: Any) -> Tensor:
        if not _needs_graph(x):
            return in_host_mode(forward, x, *args, **kwargs)
        with CopiedArguments():
            return forward(x.clone(), *args, **kwargs)

    return guided


def _leaf(module: nn.Module, forward: Forward, vjp: Vjp, groups: Groups) -> Forward:
    """The layer's forward: a _LeafFunction where a graph is recorded, otherwise run in the host's mode."""
    flatten = not hasattr(module, "kernel_size") and not isinstance(module, nn.modules.batchnorm._BatchNorm)

    def guided(x: Any, *args: Any, **kwargs: Any) -> Tensor:
        if not _needs_graph(x):
            return in_host_mode(forward, x, *args, **kwargs)
        call, call_vjp = forward, vjp
        if args or kwargs:
            call = functools.partial(_call_with, forward, args, kwargs)
            call_vjp = _affine_vjp(call)
        weight = getattr(module, "weight", None)
        resident = weight is not None and weight.device == x.device
        if not flatten:
            return _LeafFunction.apply(x, call, call_vjp, groups, resident)
        # Flattened outside the function: a view made inside it could not be modified in place later.
        out = _LeafFunction.apply(x.reshape(-1, x.shape[-1]), call, call_vjp, groups, resident)
        return out.view(*x.shape[:-1], out.shape[-1])

    return guided


def _call_with(forward: Forward, args: tuple, kwargs: dict, x: Tensor) -> Tensor:
    return forward(x, *args, **kwargs)


def _linear_forward(module: nn.Module, forward: Forward, groups: Groups) -> Forward:
    def vjp(grad: Tensor, shape: torch.Size) -> Tensor:
        with layer_parameters(module, grad) as (weight, _):
            return grad @ _dense(weight)

    if isinstance(module, CLAMPS_ITS_INPUT):
        return _leaf(module, lambda x: forward(x.clone()), vjp, groups)
    return _leaf(module, forward, vjp, groups)


def _convolution_forward(module: Convolution, forward: Forward, groups: Groups) -> Forward:
    def vjp(grad: Tensor, shape: torch.Size) -> Tensor:
        with layer_parameters(module, grad) as (weight, _):
            return input_gradient(module, _dense(weight), grad, shape)

    return _leaf(module, forward, vjp, groups)


def _affine_forward(module: nn.Module, forward: Forward, groups: Groups) -> Forward:
    return _leaf(module, forward, _affine_vjp(forward), groups)


def _affine_vjp(forward: Forward) -> Vjp:
    """The VJP of a layer with its own weight scheme (GGUF, ...): it is affine in x, so any forward pass yields it."""

    def vjp(grad: Tensor, shape: torch.Size) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad(), AffineVjp():
            probe = grad.new_zeros(shape).requires_grad_(True)
            (out,) = torch.autograd.grad(forward(probe), probe, alias(grad))
        return out

    return vjp


def _expert_forward(module: Any, forward: Forward, groups: Groups) -> Forward:
    """For the host's mixture-of-experts layer: many matrices in one weight, selected by index."""

    def guided(x: Tensor, index: int) -> Tensor:
        def vjp(grad: Tensor, shape: torch.Size) -> Tensor:
            with layer_parameters(module, grad) as (bank, _):
                matrix = module._expert_qt_from(bank, index) if isinstance(bank, QUANTIZED) else bank[index]
                return grad @ _dense(matrix)

        call = functools.partial(_call_with, forward, (index,), {})
        return _LeafFunction.apply(x, call, vjp, groups) if _needs_graph(x) else in_host_mode(call, x)

    return guided


def _norm_forward(module: nn.GroupNorm | nn.LayerNorm | nn.RMSNorm, forward: Forward, groups: Groups) -> Forward:
    """For norms: uses copies of their (small) parameters and of their input, which in-place residuals may overwrite."""

    def guided(x: Tensor) -> Tensor:
        if not _needs_graph(x):
            return in_host_mode(forward, x)
        if getattr(module, "weight", None) is None:
            return forward(x.clone())
        with torch.inference_mode(), layer_parameters(module, x) as parameters:
            scale, shift = (None if p is None else alias(p.clone()) for p in parameters)
        x = x.clone()
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(x, module.num_groups, scale, shift, module.eps)
        if isinstance(module, nn.LayerNorm):
            return F.layer_norm(x, module.normalized_shape, scale, shift, module.eps)
        return F.rms_norm(x, module.normalized_shape, scale, module.eps)

    return guided
