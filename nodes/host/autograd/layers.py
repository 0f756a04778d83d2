"""The layers of a model during a guided run: forwards whose backward pass asks the host for the weight again.

Nothing of a weight is saved for backward, and everything that touches one that lives elsewhere runs in inference mode,
as the host's own evaluation does: its buffers for such weights were made there, and may be written only there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import comfy.model_management
import comfy.ops
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import input_gradient
from .inference_tensors import AffineVjp, CopiedArguments, alias, in_host_mode

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
QUANTIZED = getattr(comfy.ops, "QuantizedTensor", ())
CLAMPS_ITS_INPUT = getattr(getattr(comfy.ops, "fp8_ops", None), "Linear", ())
Forward = Callable[..., Tensor]
Vjp = Callable[[Tensor, torch.Size], Tensor]


class NoGroups:
    """A model whose weights stay the same within an evaluation. See hooks.WeightGroups for one that hooks change."""

    current = None

    def use(self, group) -> None:
        """Weights as they are."""


def guided_methods(module: nn.Module, groups=None) -> dict[str, Forward]:
    """The methods that replace module's during a run, by name; empty where the module needs none of its own.

    groups: which of several sets of weights is in place, `current`, and `use(group)` to put one back for a VJP.
    """
    groups = NoGroups() if groups is None else groups
    casts = isinstance(module, comfy.ops.CastWeightBiasOp)  # the host's layers, those that are no nn.Linear included
    if casts and hasattr(module, "expert_linear"):
        return {"expert_linear": _expert_forward(module, module.expert_linear, groups)}
    make = _maker(module, casts)
    if make is not None:
        return {"forward": make(module, module.forward, groups)}
    if casts:  # norms of other packs; embeddings, whose input is no float, so that no gradient passes them
        return {"forward": _copying_forward(module.forward)}
    return {}


def _maker(module: nn.Module, casts: bool) -> Callable | None:
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
    """y = forward(x) with the gradient of x given by `vjp(grad_y, shape_of_x)`. Saves no tensor at all."""

    @staticmethod
    def forward(ctx, x: Tensor, forward: Forward, vjp: Vjp, groups, resident: bool = False) -> Tensor:
        ctx.vjp, ctx.shape, ctx.dtype, ctx.resident = vjp, x.shape, x.dtype, resident
        ctx.groups, ctx.group = groups, groups.current
        x = x.detach()  # the host's quantised layers take another path for inputs with gradients
        return forward(x) if resident else in_host_mode(forward, x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if ctx.groups.current is not ctx.group:
            ctx.groups.use(ctx.group)
        if ctx.resident:
            return ctx.vjp(grad, ctx.shape).to(ctx.dtype), None, None, None, None
        with torch.inference_mode():
            out = ctx.vjp(grad, ctx.shape).to(ctx.dtype)
        return alias(out), None, None, None, None


@contextlib.contextmanager
def layer_parameters(module: nn.Module, like: Tensor):
    """(weight, bias) as the layer's forward would use them now, in `like`'s dtype and device, during the block.

    They may lie in a buffer that the next layer's overwrite: copy what has to last. Call it in inference mode.
    """
    if not isinstance(module, comfy.ops.CastWeightBiasOp):
        bias = getattr(module, "bias", None)
        yield tuple(None if p is None else p.to(device=like.device, dtype=like.dtype) for p in (module.weight, bias))
        return
    weight, bias, stream = comfy.ops.cast_bias_weight(module, like, offloadable=True)
    try:
        yield weight, bias
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def _dense(weight: Tensor) -> Tensor:
    return weight.dequantize() if isinstance(weight, QUANTIZED) else weight


def _records(x) -> bool:
    return torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad


def _copying_forward(forward: Forward) -> Forward:
    """Any layer's own forward; the graph saves copies only. Fine for layers with small weights."""

    def guided(x, *args, **kwargs):
        if not _records(x):
            return in_host_mode(forward, x, *args, **kwargs)
        with CopiedArguments():
            return forward(x.clone(), *args, **kwargs)

    return guided


def _leaf(module: nn.Module, forward: Forward, vjp: Vjp, groups) -> Forward:
    """The layer's forward as a _LeafFunction where a graph is recorded, in the host's mode where not."""
    flatten = not hasattr(module, "kernel_size") and not isinstance(module, nn.modules.batchnorm._BatchNorm)

    def guided(x, *args, **kwargs):
        if not _records(x):
            return in_host_mode(forward, x, *args, **kwargs)
        run, back = forward, vjp
        if args or kwargs:

            def run(t: Tensor) -> Tensor:
                return forward(t, *args, **kwargs)

            back = _affine_vjp(run)
        weight = getattr(module, "weight", None)
        resident = weight is not None and weight.device == x.device  # then there is no buffer to write to
        if not flatten:
            return _LeafFunction.apply(x, run, back, groups, resident)
        # Flattened outside the function: a view made inside it could not be changed in place afterwards.
        out = _LeafFunction.apply(x.reshape(-1, x.shape[-1]), run, back, groups, resident)
        return out.view(*x.shape[:-1], out.shape[-1])

    return guided


def _linear_forward(module: nn.Module, forward: Forward, groups) -> Forward:
    def vjp(grad: Tensor, shape) -> Tensor:
        with layer_parameters(module, grad) as (weight, _):
            return grad @ _dense(weight)

    if isinstance(module, CLAMPS_ITS_INPUT):
        return _leaf(module, lambda x: forward(x.clone()), vjp, groups)
    return _leaf(module, forward, vjp, groups)


def _convolution_forward(module: nn.Module, forward: Forward, groups) -> Forward:
    def vjp(grad: Tensor, shape) -> Tensor:
        with layer_parameters(module, grad) as (weight, _):
            return input_gradient(module, _dense(weight), grad, shape)

    return _leaf(module, forward, vjp, groups)


def _affine_forward(module: nn.Module, forward: Forward, groups) -> Forward:
    return _leaf(module, forward, _affine_vjp(forward), groups)


def _affine_vjp(forward: Forward) -> Vjp:
    """For layers with a weight scheme of their own (GGUF, ...): affine in x, so the VJP is that of any forward pass."""

    def vjp(grad: Tensor, shape) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad(), AffineVjp():
            probe = grad.new_zeros(shape).requires_grad_(True)
            (out,) = torch.autograd.grad(forward(probe), probe, alias(grad))
        return out

    return vjp


def _expert_forward(module: nn.Module, forward: Forward, groups) -> Forward:
    """The host's mixture-of-experts layer: many matrices in one weight, chosen by index."""

    def guided(x: Tensor, index: int) -> Tensor:
        def vjp(grad: Tensor, shape) -> Tensor:
            with layer_parameters(module, grad) as (bank, _):
                one = module._expert_qt_from(bank, index) if isinstance(bank, QUANTIZED) else bank[index]
                return grad @ _dense(one)

        def run(t: Tensor) -> Tensor:
            return forward(t, index)

        return _LeafFunction.apply(x, run, vjp, groups) if _records(x) else in_host_mode(run, x)

    return guided


def _norm_forward(module: nn.Module, forward: Forward, groups) -> Forward:
    """Norms get copies of their (small) parameters and of their input, which later in-place residuals may overwrite."""

    def guided(x: Tensor) -> Tensor:
        if not _records(x):
            return in_host_mode(forward, x)
        if module.weight is None:
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
