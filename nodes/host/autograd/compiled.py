"""Compiled models and engines: differentiated through their PyTorch originals, or rejected.

What `torch.compile` returns still holds the modules it was made from. A differentiated evaluation runs those, and
unguided steps keep running the compiled code. That was compiled for the modules without GradPaint's changes, so the
changes are taken off between guided evaluations; otherwise every run would recompile. Engines (TensorRT, ...) and other
libraries' kernels have no original, or no backward pass: they are rejected before the first evaluation.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import comfy.patcher_extension
import torch
from torch import nn

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.samplers import CFGGuider

# Packages whose modules have no backward pass: (package, what their models are, the node that makes them).
ENGINES = (
    ("tensorrt", "a TensorRT engine", "TensorRT Loader"),
    ("torch_tensorrt", "compiled by Torch-TensorRT", "the node that compiles it"),
    ("nunchaku", "quantized for Nunchaku, whose kernels have no backward pass", "the Nunchaku loader"),
    ("onediff", "compiled by OneDiff", "the OneDiff node"),
    ("onediffx", "compiled by OneDiff", "the OneDiff node"),
    ("oneflow", "compiled by OneFlow", "the OneDiff node"),
    ("sfast", "compiled by stable-fast", "the stable-fast node"),
    ("openvino", "compiled by OpenVINO", "the OpenVINO node"),
    ("coremltools", "a Core ML model", "the Core ML loader"),
)
ALTERNATIVES = (
    "Load the original model (Load Checkpoint, Load Diffusion Model), or set gradient to x0, which needs no gradient "
    "of the model"
)
_ABSENT = object()


def check_engine(model: BaseModel) -> None:
    """Reject models that run on an engine, or on kernels without a gradient.

    Raises:
        ValueError: naming the engine and the node to remove.
    """
    network = model.diffusion_model
    original = getattr(network, "_orig_mod", network)
    if not isinstance(original, nn.Module):
        kind, node = _engine_of(type(original)) or ("an engine outside of PyTorch", "the node that makes it")
        if "trt" in type(original).__name__.lower():
            kind, node = "a TensorRT engine", "TensorRT Loader"
        raise ValueError(_rejection(type(original).__name__, kind, node))
    for module in original.modules():
        engine = _engine_of(type(module))
        if engine is not None:
            raise ValueError(_rejection(type(module).__name__, *engine))


def _engine_of(kind: type) -> tuple[str, str] | None:
    """(what the model is, the node that makes it) for a class of one of ENGINES' packages."""
    parts = [part.lower() for part in kind.__module__.split(".")]
    for package, what, node in ENGINES:
        if package in parts or any(part.endswith("-" + package) for part in parts):
            return what, node
    return None


def _rejection(name: str, kind: str, node: str) -> str:
    return (
        f"GradPaint can't differentiate through this model: it is {kind} ({name}) and has no gradient. Take {node} "
        f"out of this model's path. {ALTERNATIVES}"
    )


def is_compiled(guider: CFGGuider, models: Iterable[nn.Module]) -> bool:
    """Whether the guider's evaluations of these models run any code compiled by torch.compile."""
    if any(_is_compiled_module(module) for model in models for module in model.modules()):
        return True
    wrappers = comfy.patcher_extension.get_all_wrappers(
        comfy.patcher_extension.WrappersMP.APPLY_MODEL, guider.model_options.get("transformer_options", {})
    )
    wrappers = [*wrappers, guider.model_options.get("model_function_wrapper")]
    return any(_holds_compiled(wrapper) for wrapper in wrappers if wrapper is not None)


def _is_compiled_module(module: nn.Module) -> bool:
    return (
        isinstance(module, torch._dynamo.eval_frame.OptimizedModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
    )


def _holds_compiled(wrapper: Callable) -> bool:
    """Whether a wrapper refers to a compiled module or function (the host's own keeps a dict of them)."""
    held: list[Any] = list(vars(wrapper).values()) if hasattr(wrapper, "__dict__") else []
    if inspect.isfunction(wrapper):
        held += [cell.cell_contents for cell in wrapper.__closure__ or () if cell.cell_contents is not None]
    held = [item for value in held for item in (value.values() if isinstance(value, dict) else [value])]
    return any(
        hasattr(item, "_torchdynamo_orig_callable")
        or (isinstance(item, nn.Module) and any(map(_is_compiled_module, item.modules())))
        for item in held
    )


def uncompiled() -> AbstractContextManager:
    """Inside the block, compiled code runs as the Python it was compiled from.

    Raises:
        ValueError: for PyTorch before 2.6, which can't do that.
    """
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None:
        raise ValueError(
            "GradPaint can't differentiate through a compiled model with this version of PyTorch: take the node that "
            "compiles the model (TorchCompileModel, ...) out of its path, or update PyTorch to 2.6 or newer"
        )
    return stance("force_eager")


class _Change(NamedTuple):
    """An entry of a module's attributes, parameters or buffers as it is in plain and in guided evaluations."""

    table: dict[str, Any]
    name: str
    plain: object
    guided: object


class GuidedOnly:
    """What a run puts on modules (methods, tensors), kept on them during guided evaluations only.

    Create it before anything is put on, and call `settle` once everything is. Call `restore` before it is taken off.
    """

    def __init__(self, models: Iterable[nn.Module]) -> None:
        modules = {id(module): module for model in models for module in model.modules()}.values()
        self._tables: list[dict[str, Any]] = [
            table for module in modules for table in (vars(module), module._parameters, module._buffers)
        ]
        self._before = [dict(table) for table in self._tables]
        self._changes: list[_Change] = []

    def settle(self) -> None:
        """Note everything that was put on, and take it off."""
        for table, before in zip(self._tables, self._before):
            for name in before.keys() | table.keys():
                change = _Change(table, name, before.get(name, _ABSENT), table.get(name, _ABSENT))
                if change.plain is not change.guided:
                    self._changes.append(change)
        self._before = []
        self._write_plain()

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Around a guided evaluation and its backward pass."""
        self._write_guided()
        try:
            with uncompiled():
                yield
        finally:
            self._write_plain()

    def restore(self) -> None:
        """Put everything back on, so that whoever put it on can take it off."""
        self._write_guided()

    def _write_plain(self) -> None:
        for change in self._changes:
            _write(change.table, change.name, change.plain)

    def _write_guided(self) -> None:
        for change in self._changes:
            _write(change.table, change.name, change.guided)


def _write(table: dict[str, Any], name: str, value: object) -> None:
    if value is _ABSENT:
        table.pop(name, None)
    else:
        table[name] = value


class Differentiates(Protocol):
    """Whoever runs the guided evaluations: `around` is entered for each of them."""

    around: Callable[[], AbstractContextManager]


@contextlib.contextmanager
def guided_only(
    guider: CFGGuider,
    modules: list[nn.Module],
    put_on: Callable[[], AbstractContextManager],
    differentiator: Differentiates,
) -> Iterator[None]:
    """Enter put_on() for the block; for a compiled model its changes are on during guided evaluations only."""
    if not modules or not is_compiled(guider, modules):
        with put_on():
            yield
        return
    guided = GuidedOnly(modules)
    with put_on():
        guided.settle()
        differentiator.around = guided.evaluation
        try:
            yield
        finally:
            guided.restore()
