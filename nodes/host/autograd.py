"""Makes a model that the host loaded differentiable in its input, without saving or touching a weight.

The host loads weights as inference tensors, hands out reused buffers for weights that live elsewhere, and dequantises
into temporaries: autograd must save none of them. So for the time of one run
  * each linear or convolution layer runs through a custom autograd function, whose forward is the layer's own forward
    and whose backward asks the host for the weight again and returns the gradient of the input only;
  * norm layers get their (small) scale and a private copy of their input, which later in-place residuals may overwrite;
  * every other parameter or buffer that is an inference tensor is replaced by an ordinary copy.
`differentiable` undoes all of it on exit. Nothing is patched globally but what `grad_enabled` holds during a guided
evaluation: the host's own `in_training` switch, which selects its differentiable kernels, and, where the host does not
look at the switch, the fused kernels' entries in `comfy_kitchen`.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import comfy.model_management
import comfy.ops
import comfy.quant_ops
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
# Where the host calls these although it is told to be differentiable (Anima, Cosmos Predict 2, Ernie, JoyImage).
FUSED_KERNELS = ("apply_rope", "apply_rope1", "apply_rope_split_half", "apply_rope_split_half1",
                 "rms_rope", "rms_rope1", "rms_rope_split_half", "rms_rope_split_half1", "adaln", "rms_adaln")
Forward = Callable[..., Tensor]


class _LeafFunction(torch.autograd.Function):
    """y = forward(x) with the gradient of x given by `vjp(grad_y, shape_of_x)`. Saves no tensor at all."""

    @staticmethod
    def forward(ctx, x: Tensor, forward: Forward, vjp: Callable) -> Tensor:
        ctx.vjp, ctx.shape, ctx.dtype = vjp, x.shape, x.dtype
        return forward(x.detach())  # detached: the host's quantised layers take another path for inputs with gradients

    @staticmethod
    def backward(ctx, grad: Tensor):
        comfy.model_management.throw_exception_if_processing_interrupted()
        return ctx.vjp(grad, ctx.shape).to(ctx.dtype), None, None


@contextlib.contextmanager
def layer_weight(module: nn.Module, like: Tensor):
    """The layer's weight as its forward would use it now, in `like`'s dtype and device, for the time of the block."""
    if isinstance(module, comfy.ops.CastWeightBiasOp):
        weight, bias, stream = comfy.ops.cast_bias_weight(module, like, offloadable=True)
        try:
            yield _dense(weight)
        finally:
            comfy.ops.uncast_bias_weight(module, weight, bias, stream)
    else:
        yield _dense(module.weight.to(device=like.device, dtype=like.dtype))


def _dense(weight: Tensor) -> Tensor:
    return weight.dequantize() if isinstance(weight, comfy.ops.QuantizedTensor) else weight


def _linear_forward(module: nn.Module, forward: Forward) -> Forward:
    def vjp(grad: Tensor, shape) -> Tensor:
        with layer_weight(module, grad) as weight:
            return grad @ weight

    def guided(x: Tensor, *args, **kwargs) -> Tensor:
        if not _records(x) or args or kwargs:
            return forward(x, *args, **kwargs)
        # Flattened outside the function: a view made inside it could not be changed in place afterwards.
        out = _LeafFunction.apply(x.reshape(-1, x.shape[-1]), forward, vjp)
        return out.view(*x.shape[:-1], out.shape[-1])

    return guided


def _convolution_forward(module: nn.Module, forward: Forward) -> Forward:
    dims = len(module.kernel_size)

    def vjp(grad: Tensor, shape) -> Tensor:
        with layer_weight(module, grad) as weight:
            like = grad.new_empty(1).expand(shape)  # only its shape is read: the weight's gradient is not asked for
            return torch.ops.aten.convolution_backward(
                grad, like, weight, None, module.stride, module.padding, module.dilation, False, [0] * dims,
                module.groups, (True, False, False))[0]

    def guided(x: Tensor, *args, **kwargs) -> Tensor:
        if not _records(x) or args or kwargs:
            return forward(x, *args, **kwargs)
        return _LeafFunction.apply(x, forward, vjp)

    return guided


def _affine_forward(module: nn.Module, forward: Forward) -> Forward:
    """For layers with a weight scheme of their own (GGUF, ...): affine in x, so the VJP is that of any forward pass."""

    def vjp(grad: Tensor, shape) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad(), _ordinary_tensors([module]):
            probe = grad.new_zeros(shape).requires_grad_(True)
            (out,) = torch.autograd.grad(forward(probe), probe, grad)
        return out

    def guided(x: Tensor, *args, **kwargs) -> Tensor:
        if not _records(x) or args or kwargs:
            return forward(x, *args, **kwargs)
        flat = x if hasattr(module, "kernel_size") else x.reshape(-1, x.shape[-1])
        out = _LeafFunction.apply(flat, forward, vjp)
        return out if flat is x else out.view(*x.shape[:-1], out.shape[-1])

    return guided


def _norm_forward(module: nn.Module, forward: Forward) -> Forward:
    def guided(x: Tensor) -> Tensor:
        if not _records(x):
            return forward(x)
        if module.weight is None:
            return forward(x.clone())
        weight, bias, stream = (comfy.ops.cast_bias_weight(module, x, offloadable=True)
                                if isinstance(module, comfy.ops.CastWeightBiasOp)
                                else (module.weight, getattr(module, "bias", None), None))
        scale, shift = weight.clone(), None if bias is None else bias.clone()
        if stream is not None:
            comfy.ops.uncast_bias_weight(module, weight, bias, stream)
        x = x.clone()
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(x, module.num_groups, scale, shift, module.eps)
        if isinstance(module, nn.LayerNorm):
            return F.layer_norm(x, module.normalized_shape, scale, shift, module.eps)
        return F.rms_norm(x, module.normalized_shape, scale, module.eps)

    return guided


def _records(x) -> bool:
    return torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad


def _is_bank(module: nn.Module) -> bool:
    return hasattr(module, "num_experts")  # the host's MoE layer: many matrices in one weight, no forward of its own


def _guided_forward(module: nn.Module) -> Forward | None:
    """The forward that replaces module's during a run, None where the module needs none of its own."""
    forward = module.forward
    home = type(module).__module__
    host_layer = (home == "comfy.ops" or home.startswith("torch.")) and "forward" not in vars(module)
    casts = isinstance(module, comfy.ops.CastWeightBiasOp)  # the host's layers, those that are no nn.Linear included
    if isinstance(module, nn.Linear) or (casts and hasattr(module, "in_features") and not _is_bank(module)):
        return (_linear_forward if host_layer else _affine_forward)(module, forward)
    if isinstance(module, CONVOLUTIONS) or (casts and hasattr(module, "kernel_size") and not module.transposed):
        plain = host_layer and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return (_convolution_forward if plain else _affine_forward)(module, forward)
    if isinstance(module, NORMS) and host_layer:
        return _norm_forward(module, forward)
    return None


@contextlib.contextmanager
def _ordinary_tensors(modules: Iterable[nn.Module]):
    """For the time of the block, parameters and buffers that are inference tensors are replaced by ordinary copies."""
    swapped: list[tuple[dict, str, Tensor, Tensor]] = []
    try:
        with torch.inference_mode(False):
            for table in (table for module in modules for table in (module._parameters, module._buffers)):
                for name, tensor in table.items():
                    if tensor is None or not tensor.is_inference() or not tensor.is_floating_point():
                        continue
                    copy = tensor.clone()
                    copy = nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
                    table[name] = copy
                    swapped.append((table, name, tensor, copy))
        yield
    finally:
        for table, name, tensor, copy in swapped:
            if table.get(name) is copy:  # else the host has replaced it meanwhile: that one stays
                table[name] = tensor


@contextlib.contextmanager
def differentiable(models: Iterable[nn.Module]):
    """For the time of the block the models' outputs can be differentiated in their inputs (not in their weights).

    The modules are walked once on entry; in between nothing is looked up per step.
    """
    patched: list[tuple[nn.Module, Forward | None]] = []
    others: list[nn.Module] = []
    modules = {id(module): module for model in models for module in model.modules()}
    try:
        for module in modules.values():
            forward = _guided_forward(module)
            if forward is not None:
                # Instance attribute: the class and every other instance stay as they are.
                patched.append((module, vars(module).get("forward")))
                module.forward = forward
            elif not isinstance(module, nn.Embedding):  # its input is no float: no gradient passes it
                others.append(module)
        with _ordinary_tensors(others):
            yield
    finally:
        for module, forward in patched:
            if forward is None:
                vars(module).pop("forward", None)
            else:
                module.forward = forward


def _own(value):
    """A norm's scale comes as the host's loader hands it out: an inference tensor, or a buffer that is used again."""
    return value.clone() if isinstance(value, Tensor) and (value.is_inference() or value.ndim == 1) else value


def _plain_kernel(kernel: Callable) -> Callable:
    return lambda *args, **kwargs: kernel(*map(_own, args), **{key: _own(value) for key, value in kwargs.items()})


@contextlib.contextmanager
def _plain_kernels():
    """For the time of the block, comfy_kitchen's operators that have no backward pass run in their PyTorch forms."""
    library = getattr(comfy.quant_ops, "ck", None)
    plain = getattr(getattr(library, "backends", None), "eager", None)
    fused = {name: getattr(library, name) for name in FUSED_KERNELS if hasattr(library, name) and hasattr(plain, name)}
    try:
        for name in fused:
            setattr(library, name, _plain_kernel(getattr(plain, name)))
        yield
    finally:
        for name, kernel in fused.items():
            setattr(library, name, kernel)


@contextlib.contextmanager
def grad_enabled(writes_in_place: bool = False):
    """One differentiated evaluation: out of the host's inference mode, with its differentiable kernels selected.

    writes_in_place: for models that overwrite tensors which their own graph needs; PyTorch then copies those first.
    """
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    copies = torch.autograd.graph.allow_mutation_on_saved_tensors if writes_in_place else contextlib.nullcontext
    try:
        with torch.inference_mode(False), torch.enable_grad(), _plain_kernels(), copies():
            yield
    finally:
        comfy.model_management.in_training = before


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
