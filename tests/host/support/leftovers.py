"""Everything a run could leave behind: on modules, on the MODEL, in the host's and torch's globals, in memory."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

import torch

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
)

PATCHER = ("model_options", "wrappers", "callbacks", "object_patches", "object_patches_backup", "injections", "backup")


def control_net(seed: int = 5):
    """A tiny random ControlNet for zoo.sd15, in the host's wrapper."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops
    import zoo

    config = {
        key: value
        for key, value in zoo._unet_config().items()
        if key not in ("out_channels", "transformer_depth_output")
    }
    with torch.inference_mode():
        net = comfy.cldm.cldm.ControlNet(
            hint_channels=3, num_heads=8, operations=comfy.ops.disable_weight_init, dtype=torch.float32, **config
        ).eval()
        zoo._randomise(net, seed)
        return comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))


def _module(module: torch.nn.Module) -> dict:
    """A module's attributes: which there are, and for functions, parameters, buffers and children which objects."""
    state = {
        name: id(value) if callable(value) or isinstance(value, torch.Tensor) else type(value)
        for name, value in vars(module).items()
    }
    for table in ("_parameters", "_buffers", "_modules"):
        state[table] = {
            name: (id(value), value.data_ptr() if isinstance(value, torch.Tensor) else None)
            for name, value in getattr(module, table).items()
        }
    state["hooks"] = {name: [id(hook) for hook in getattr(module, name, {}).values()] for name in HOOKS}
    state["class"], state["training"] = id(type(module)), module.training
    return state


def _functions(holder) -> dict:
    return {name: id(value) for name, value in list(vars(holder).items()) if callable(value)}


def _globals() -> dict:
    """Functions of the host's, its kernel library's and torch's modules and classes; the host's switches."""
    import comfy.cli_args
    import comfy.model_management

    state = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("comfy", "comfy_extras", "comfy_kitchen") or name in (
            "torch",
            "torch.nn.functional",
            "torch.autograd",
            "torch.utils.checkpoint",
            "torch.autograd.graph",
        ):
            state[name] = _functions(module)
            for key, value in list(vars(module).items()):
                if isinstance(value, type) and value.__module__ == name:
                    state[f"{name}.{key}"] = _functions(value)
    state["args"] = dict(vars(comfy.cli_args.args))
    state["in_training"] = comfy.model_management.in_training
    state["interrupted"] = comfy.model_management.processing_interrupted()
    state["modes"] = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype())
    state["saved tensor hooks"] = torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    return state


def snapshot(patcher, *others: torch.nn.Module) -> dict:
    """State of a MODEL, all modules of its network and of `others`, and the globals. Equal if nothing was left."""
    modules = {
        f"{i}.{name}": _module(module)
        for i, root in enumerate((patcher.model, *others))
        for name, module in root.named_modules()
    }
    own = {name: repr(getattr(patcher, name)) for name in PATCHER}
    return {"modules": modules, "patcher": own, "globals": _globals()}


def changes(before, after, path: str = "") -> list[str]:
    """Where two snapshots differ, for a message that can be read."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted({*before, *after}, key=str)
            for line in changes(before.get(key, "absent"), after.get(key, "absent"), f"{path}/{key}")
        ]
    return [] if before == after else [f"{path}: {before} -> {after}"]


def live_tensors() -> tuple[int, int]:
    """(number, bytes) of the tensors that Python still knows."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if isinstance(item, torch.Tensor)]
    storages = {item.untyped_storage()._cdata: item.untyped_storage().nbytes() for item in tensors}
    return len(tensors), sum(storages.values())


def resident_bytes() -> int:
    """Physical memory of this process, without what the C library has free."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
