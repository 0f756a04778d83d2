"""Makes a model that the host loaded differentiable with respect to its input, without saving or changing a weight.

The host loads weights as inference tensors, hands out reused buffers for offloaded weights, and dequantizes into
temporaries. Autograd must not save any of them. So, for the duration of one run,
  * each linear or convolution layer runs through a custom autograd function, whose forward is the layer's own and whose
    backward asks the host for the weight again and returns only the gradient of the input (layers.py);
  * norm layers use their (small) scale and a private copy of their input, which in-place residuals may overwrite later;
  * every other parameter or buffer that is an inference tensor is seen through an ordinary one over the same memory.
`differentiable` undoes all of it on exit. Nothing is patched globally, except inside `grad_enabled`, during a guided
evaluation: the host's own `in_training` switch, which selects its differentiable kernels, and the entries in
`comfy_kitchen` of the fused kernels that the host calls regardless of that switch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import comfy.model_management
import comfy.quant_ops
import torch
from torch import Tensor, nn

from .inference_tensors import OrdinaryArguments, alias, ordinary
from .layers import guided_methods
from .replaced_attributes import ReplacedAttributes
from .saved_tensors import copy_before_write
from .weight_hooks import WeightGroups

__all__ = ["differentiable", "grad_enabled", "ordinary"]

# Kernels without a backward pass that the host calls even when `in_training` asks for differentiable ones (Anima,
# Cosmos Predict 2, Ernie, JoyImage).
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
def _ordinary_tensors(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block, parameters and buffers that are inference tensors are replaced by ordinary aliases."""
    swapped: list[tuple[dict[str, Any], str, Tensor, Tensor]] = []
    try:
        with torch.inference_mode(False):
            for table in (table for module in modules for table in _tensor_tables(module)):
                for name, tensor in table.items():
                    if tensor is None or not tensor.is_inference():
                        continue
                    ordinary_tensor = alias(tensor)
                    if ordinary_tensor is tensor:
                        continue
                    if isinstance(tensor, nn.Parameter):
                        ordinary_tensor = nn.Parameter(ordinary_tensor, requires_grad=False)
                    table[name] = ordinary_tensor
                    swapped.append((table, name, tensor, ordinary_tensor))
        yield
    finally:
        for table, name, tensor, ordinary_tensor in swapped:
            # Otherwise the host has replaced or moved it in the meantime, and its version stays.
            if table.get(name) is ordinary_tensor and ordinary_tensor.device == tensor.device:
                table[name] = tensor


def _tensor_tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers


class GuidedLayers:
    """The guided methods of all layers; they can be taken off and put on again."""

    def __init__(self, modules: list[nn.Module], groups: WeightGroups | None) -> None:
        self._modules, self._groups = modules, groups
        self._replaced = ReplacedAttributes()

    def put_on(self) -> None:
        for module in self._modules:
            for name, method in guided_methods(module, self._groups).items():
                self._replaced.replace(module, name, method)

    def take_off(self) -> None:
        self._replaced.restore()

    def others(self) -> list[nn.Module]:
        """The modules whose parameters enter the graph themselves."""
        guided = set(map(id, self._replaced.owners()))
        return [module for module in self._modules if id(module) not in guided and not isinstance(module, nn.Embedding)]


@contextlib.contextmanager
def differentiable(models: Iterable[nn.Module], groups: WeightGroups | None = None) -> Iterator[None]:
    """Inside the block the models' outputs can be differentiated with respect to their inputs, but not their weights.

    The modules are walked once, on entry; nothing is looked up per step.

    Args:
        models: everything that takes part in an evaluation.
        groups: for a model whose weights are changed by hooks within an evaluation.
    """
    modules = list({id(module): module for model in models for module in model.modules()}.values())
    layers = GuidedLayers(modules, groups)
    try:
        layers.put_on()
        others = layers.others()
        with _ordinary_tensors(others), contextlib.nullcontext() if groups is None else groups.followed(layers, others):
            yield
    finally:
        layers.take_off()


def _owned(value: Any) -> Any:
    """Copy a norm's scale, which the host's loader hands out as an inference tensor or in a buffer that it reuses."""
    return value.clone() if isinstance(value, Tensor) and (value.is_inference() or value.ndim == 1) else value


def _with_owned_arguments(kernel: Callable) -> Callable:
    return lambda *args, **kwargs: kernel(*map(_owned, args), **{key: _owned(value) for key, value in kwargs.items()})


@contextlib.contextmanager
def _unfused_kernels() -> Iterator[None]:
    """Inside the block, comfy_kitchen's operators without a backward pass run in their PyTorch forms."""
    library = getattr(comfy.quant_ops, "ck", None)
    pytorch_forms = getattr(getattr(library, "backends", None), "eager", None)
    with ReplacedAttributes() as replaced:
        for name in FUSED_KERNELS:
            if hasattr(library, name) and hasattr(pytorch_forms, name):
                replaced.replace(library, name, _with_owned_arguments(getattr(pytorch_forms, name)))
        yield


@contextlib.contextmanager
def grad_enabled(writes_in_place: bool = False, foreign_tensors: bool = False) -> Iterator[None]:
    """Run one differentiated evaluation outside the host's inference mode, with its differentiable kernels.

    Args:
        writes_in_place: for models that overwrite tensors which their own graph needs; these are copied first.
        foreign_tensors: for models with patches that hold inference tensors of their own; see OrdinaryArguments.
    """
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    copies = copy_before_write if writes_in_place else contextlib.nullcontext
    arguments = OrdinaryArguments if foreign_tensors else contextlib.nullcontext
    try:
        with torch.inference_mode(False), torch.enable_grad(), _unfused_kernels(), copies(), arguments():
            yield
    finally:
        comfy.model_management.in_training = before
