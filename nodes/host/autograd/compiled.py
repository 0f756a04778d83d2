"""Models that were compiled or turned into an engine: differentiated through their PyTorch originals, or refused.

What `torch.compile` made still holds the modules that it was made from. A differentiated evaluation runs those, and the
compiled code is left for the unguided steps. It was compiled for modules as they are without us, so what GradPaint has
put on them is taken off between guided evaluations; otherwise every run would compile anew. Engines (TensorRT, ...) and
kernels of other libraries hold no original, or have no backward pass: they are refused before the first evaluation.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable

import comfy.patcher_extension
import torch
from torch import nn

# Libraries whose modules have no backward pass: (package, what to say of it).
ENGINES = (
    ("tensorrt", "a TensorRT engine", "TensorRT Loader"),
    ("torch_tensorrt", "compiled by Torch-TensorRT", "the node that compiles it"),
    ("nunchaku", "quantised for Nunchaku, whose kernels have no backward pass", "the Nunchaku loader"),
    ("onediff", "compiled by OneDiff", "the OneDiff node"),
    ("onediffx", "compiled by OneDiff", "the OneDiff node"),
    ("oneflow", "compiled by OneFlow", "the OneDiff node"),
    ("sfast", "compiled by stable-fast", "the stable-fast node"),
    ("openvino", "compiled by OpenVINO", "the OpenVINO node"),
    ("coremltools", "a Core ML model", "the Core ML loader"),
)
INSTEAD = "Load the model itself (Load Checkpoint, Load Diffusion Model), or set gradient to x0, which needs none"
_ABSENT = object()


def check_engine(model: nn.Module) -> None:
    """ValueError if model, the host's BaseModel, runs on an engine or on kernels that have no gradient."""
    network = model.diffusion_model
    original = getattr(network, "_orig_mod", network)
    if not isinstance(original, nn.Module):
        kind, node = _engine(type(original)) or ("an engine outside of PyTorch", "the node that makes it")
        if "trt" in type(original).__name__.lower():
            kind, node = "a TensorRT engine", "TensorRT Loader"
        raise ValueError(_refusal(type(original).__name__, kind, node))
    for module in original.modules():
        found = _engine(type(module))
        if found is not None:
            raise ValueError(_refusal(type(module).__name__, *found))


def _engine(kind: type) -> tuple[str, str] | None:
    parts = [part.lower() for part in kind.__module__.split(".")]
    for package, what, node in ENGINES:
        if package in parts or any(part.endswith("-" + package) for part in parts):
            return what, node
    return None


def _refusal(name: str, kind: str, node: str) -> str:
    return (
        f"GradPaint can't differentiate through this model: it is {kind} ({name}) and has no gradient. Take {node} "
        f"out of this model's path. {INSTEAD}"
    )


def is_compiled(guider, models: Iterable[nn.Module]) -> bool:
    """Whether torch.compile has a part in the guider's evaluations of these models."""
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
    """Whether a wrapper has a compiled module or function at hand (the host's own keeps a dict of them)."""
    held = list(vars(wrapper).values()) if hasattr(wrapper, "__dict__") else []
    if inspect.isfunction(wrapper):
        held += [cell.cell_contents for cell in wrapper.__closure__ or () if cell.cell_contents is not None]
    held = [item for value in held for item in (value.values() if isinstance(value, dict) else [value])]
    return any(
        hasattr(item, "_torchdynamo_orig_callable")
        or (isinstance(item, nn.Module) and any(map(_is_compiled_module, item.modules())))
        for item in held
    )


def uncompiled():
    """For the time of the block, whatever torch.compile made runs as the Python that it was made from."""
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None:
        raise ValueError(
            "GradPaint can't differentiate through a compiled model with this PyTorch: take the node that "
            "compiles the model (TorchCompileModel, ...) out of its path, or update PyTorch to 2.6"
        )
    return stance("force_eager")


class GuidedOnly:
    """What a run puts on modules (methods, tensors), there during guided evaluations and away in between.

    Made before anything is put on; `settle` once all is. At the end `restore` before it is taken off.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        modules = {id(module): module for model in modules for module in model.modules()}.values()
        self._tables = [table for module in modules for table in (vars(module), module._parameters, module._buffers)]
        self._before = [dict(table) for table in self._tables]
        self._changes: list[tuple[dict, str, object, object]] = []

    def settle(self) -> None:
        """All is put on: note what, and take it away."""
        for table, before in zip(self._tables, self._before):
            for key in before.keys() | table.keys():
                was, now = before.get(key, _ABSENT), table.get(key, _ABSENT)
                if was is not now:
                    self._changes.append((table, key, was, now))
        self._before = []
        self._write(2)

    @contextlib.contextmanager
    def evaluation(self):
        """A guided evaluation with its backward pass."""
        self._write(3)
        try:
            with uncompiled():
                yield
        finally:
            self._write(2)

    def restore(self) -> None:
        """Put it on for good, so that whoever put it on can take it off."""
        self._write(3)

    def _write(self, column: int) -> None:
        for change in self._changes:
            table, key, value = change[0], change[1], change[column]
            if value is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = value


@contextlib.contextmanager
def guided_only(guider, modules: list[nn.Module], put_on: Callable, differentiator):
    """put_on() for the time of the block; where torch.compile has a part in it, for guided evaluations only."""
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
