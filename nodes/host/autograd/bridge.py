"""Makes a model that the host loaded differentiable in its input, without saving or touching a weight.

The host loads weights as inference tensors, hands out reused buffers for weights that live elsewhere, and dequantises
into temporaries: autograd must save none of them. So for the time of one run
  * each linear or convolution layer runs through a custom autograd function, whose forward is the layer's own forward
    and whose backward asks the host for the weight again and returns the gradient of the input only (layers.py);
  * norm layers get their (small) scale and a private copy of their input, which later in-place residuals may overwrite;
  * every other parameter or buffer that is an inference tensor is seen through an ordinary one over the same memory.
`differentiable` undoes all of it on exit. Nothing is patched globally but what `grad_enabled` holds during a guided
evaluation: the host's own `in_training` switch, which selects its differentiable kernels, and, where the host does not
look at the switch, the fused kernels' entries in `comfy_kitchen`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import comfy.model_management
import comfy.quant_ops
import torch
from torch import Tensor, nn

from .inference_tensors import OrdinaryArguments, alias, ordinary
from .layers import guided_methods
from .saved_tensors import copy_before_write

__all__ = ["differentiable", "grad_enabled", "ordinary"]

# Where the host calls these although it is told to be differentiable (Anima, Cosmos Predict 2, Ernie, JoyImage).
FUSED_KERNELS = (
    "apply_rope",
    "apply_rope1",
    "apply_rope_split_half",
    "apply_rope_split_half1",
    "rms_rope",
    "rms_rope1",
    "rms_rope_split_half",
    "rms_rope_split_half1",
    "adaln",
    "rms_adaln",
)


@contextlib.contextmanager
def _ordinary_tensors(modules: Iterable[nn.Module]):
    """For the time of the block, parameters and buffers that are inference tensors are replaced by ordinary aliases."""
    swapped: list[tuple[dict, str, Tensor, Tensor]] = []
    try:
        with torch.inference_mode(False):
            for table in (table for module in modules for table in (module._parameters, module._buffers)):
                for name, tensor in table.items():
                    if tensor is None or not tensor.is_inference():
                        continue
                    same = alias(tensor)
                    if same is tensor:
                        continue
                    same = nn.Parameter(same, requires_grad=False) if isinstance(tensor, nn.Parameter) else same
                    table[name] = same
                    swapped.append((table, name, tensor, same))
        yield
    finally:
        for table, name, tensor, same in swapped:
            # Else the host has replaced or moved it meanwhile: that one stays.
            if table.get(name) is same and same.device == tensor.device:
                table[name] = tensor


class _Installed:
    """The guided methods of all layers, put on the instances (classes and other instances stay as they are)."""

    def __init__(self, modules: list[nn.Module], groups):
        self.modules, self.groups = modules, groups
        self.before: list[tuple[nn.Module, str, Callable | None]] = []

    def put(self) -> None:
        for module in self.modules:
            for name, method in guided_methods(module, self.groups).items():
                self.before.append((module, name, vars(module).get(name)))
                setattr(module, name, method)

    def take(self) -> None:
        while self.before:
            module, name, method = self.before.pop()
            if method is None:
                vars(module).pop(name, None)
            else:
                setattr(module, name, method)


@contextlib.contextmanager
def differentiable(models: Iterable[nn.Module], groups=None):
    """For the time of the block the models' outputs can be differentiated in their inputs (not in their weights).

    The modules are walked once on entry; in between nothing is looked up per step.
    groups: hooks.WeightGroups of a model whose weights hooks change within one evaluation.
    """
    modules = list({id(module): module for model in models for module in model.modules()}.values())
    installed = _Installed(modules, groups)
    try:
        installed.put()
        handled = {id(module) for module, *_ in installed.before}
        others = [module for module in modules if id(module) not in handled and not isinstance(module, nn.Embedding)]
        with (
            _ordinary_tensors(others),
            contextlib.nullcontext() if groups is None else groups.followed(installed, others),
        ):
            yield
    finally:
        installed.take()


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
def grad_enabled(writes_in_place: bool = False, foreign_tensors: bool = False):
    """One differentiated evaluation: out of the host's inference mode, with its differentiable kernels selected.

    writes_in_place: for models that overwrite tensors which their own graph needs; those are then copied first.
    foreign_tensors: for models with patches that keep inference tensors of their own; see OrdinaryArguments.
    """
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    copies = copy_before_write if writes_in_place else contextlib.nullcontext
    arguments = OrdinaryArguments if foreign_tensors else contextlib.nullcontext
    try:
        with torch.inference_mode(False), torch.enable_grad(), _plain_kernels(), copies(), arguments():
            yield
    finally:
        comfy.model_management.in_training = before
