"""The host's dynamic VRAM (aimdo) on a CPU: its own casts, over stand-ins for what only a GPU driver can do.

Weights are faulted into a reserved address range and may be taken away once they are unpinned; where there is no room
they go through cast buffers. Memory that is taken away is filled with NaN, so that whatever reads it afterwards shows.
"""

from __future__ import annotations

import contextlib

import torch
from offload import Elsewhere, Stream


class Pages:
    """What stands for a weight's part of the address range."""

    def __init__(self, size: int, order: int, log: DynamicVram):
        self.bytes = torch.empty(size, dtype=torch.uint8)
        self.signature, self.pinned, self.faults, self.order, self.log = 0, 0, 0, order, log

    def fault(self):
        """A signature that changes when the memory was lost meanwhile, or None where there is no room."""
        self.faults += 1
        if (self.faults + self.order) % 4 == 0:
            return None
        self.pinned += 1
        self.log.pinned += 1
        return self.signature

    def unpin(self) -> None:
        assert self.pinned == 1
        self.pinned -= 1
        self.log.unpinned += 1
        if (self.faults + self.order) % 3 == 0:
            self.signature += 1
            self.log.evicted += 1
            with torch.inference_mode():
                self.bytes.fill_(255)


class Buffer:
    """What stands for the host's growing cast buffer of a stream."""

    def __init__(self):
        self.bytes = torch.empty(1 << 22, dtype=torch.uint8)

    def size(self) -> int:
        return self.bytes.numel()

    def get(self, size: int, offset: int) -> torch.Tensor:
        return self.bytes[offset : offset + size]

    def fill_(self, value: int) -> None:
        self.bytes.fill_(255)


class DynamicVram:
    """How often weights were pinned, unpinned and taken away."""

    def __init__(self):
        self.pinned = self.unpinned = self.evicted = 0


@contextlib.contextmanager
def dynamic_vram(monkeypatch, patcher):
    """While inside, the layers of `patcher`'s model (not loaded) get their weights as under dynamic VRAM."""
    import comfy.memory_management as memory
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.pinned_memory
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch

    log, cpu, buffers = DynamicVram(), torch.device("cpu"), {}
    with torch.inference_mode():
        for order, (name, module) in enumerate(patcher.model.named_modules()):
            if not hasattr(module, "comfy_cast_weights") or getattr(module, "weight", None) is None:
                continue
            module.comfy_cast_weights, module.seed_key, module._v_signature = True, name, None
            size = 0
            for key in ("weight", "bias"):
                p = getattr(module, key, None)
                patched = f"{name}.{key}" in patcher.patches
                setattr(
                    module,
                    f"{key}_lowvram_function",
                    comfy.model_patcher.LowVramPatch(f"{name}.{key}", patcher.patches) if patched else None,
                )
                setattr(module, f"{key}_function", [])
                if p is not None:
                    module._parameters[key] = Elsewhere(p.data, requires_grad=False)
                    size += memory.vram_aligned_size(p)
            module._v = Pages(size, order, log)
    with monkeypatch.context() as patch:
        patch.setattr(management, "is_device_cpu", lambda device: False)
        patch.setattr(management, "NUM_STREAMS", 2)
        patch.setattr(management, "STREAMS", {cpu: [Stream(), Stream()]})
        patch.setattr(management, "STREAM_CAST_BUFFERS", buffers)
        patch.setattr(management, "get_aimdo_cast_buffer", lambda stream, _: buffers.setdefault(stream, Buffer()))
        patch.setattr(comfy.pinned_memory, "get_pin", lambda *args, **kwargs: None)
        patch.setattr(comfy.pinned_memory, "pin_memory", lambda *args, **kwargs: None)
        patch.setattr(comfy_aimdo.model_vbar, "vbar_fault", Pages.fault)
        patch.setattr(comfy_aimdo.model_vbar, "vbar_unpin", Pages.unpin)
        patch.setattr(comfy_aimdo.model_vbar, "vbar_signature_compare", lambda a, b: a is not None and a == b)
        # A new tensor each time, as from a raw pointer: no version counter in common.
        patch.setattr(
            comfy_aimdo.torch,
            "aimdo_to_tensor",
            lambda alloc, _: torch.from_numpy((alloc.bytes if isinstance(alloc, Pages) else alloc).numpy()),
        )
        yield log
