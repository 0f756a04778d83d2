"""Free memory, out-of-memory errors and peaks, as the host and PyTorch report them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch
from torch import Tensor

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.model_patcher import ModelPatcher

# The words of backends without an exception class of their own: CPU, MPS, DirectML, CUDA libraries.
OUT_OF_MEMORY_WORDS = (
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "could not allocate tensor",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)

# A guided step that recomputes all blocks needs 3 (Flux), 4 (SDXL) to 6 (SD3.5 large) times the host's estimate.
ROOM_FACTOR = 4


def free_memory(model: BaseModel, device: torch.device) -> int:
    """Return how many bytes the model's evaluation may take on the device."""
    patcher: Any = getattr(model, "current_patcher", None)
    if hasattr(patcher, "get_free_memory"):  # includes what the host can free on demand
        return int(patcher.get_free_memory(device))
    return int(comfy.model_management.get_free_memory(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that an allocation failed, on any device."""
    host_exception = getattr(comfy.model_management, "OOM_EXCEPTION", Exception)
    is_specific = host_exception is not Exception
    if isinstance(error, MemoryError) or (is_specific and isinstance(error, host_exception)):
        return True
    if isinstance(error, getattr(torch, "OutOfMemoryError", ())):
        return True
    host_check = getattr(comfy.model_management, "is_oom", None)
    if host_check is not None and is_specific and host_check(error):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY_WORDS)


def leave_room(executor: Callable, model: ModelPatcher, noise_shape: list[int], *args: Any, **kwargs: Any) -> Any:
    """Wrap `prepare_sampling` so that the host leaves as much memory free as for a batch ROOM_FACTOR times as large.

    For that it unloads other models and, where memory is short, streams more of this one's weights. It is enough for
    guided steps that recompute every block.
    """
    if all(isinstance(size, int) for size in noise_shape):
        noise_shape = [ROOM_FACTOR * noise_shape[0], *noise_shape[1:]]
    return executor(model, noise_shape, *args, **kwargs)


def release_unused() -> None:
    """Free what an aborted evaluation held. Call it outside the except block, whose traceback holds tensors."""
    gc.collect()
    comfy.model_management.soft_empty_cache()


def to_host(tensor: Tensor) -> Tensor:
    """Copy a tensor to host memory; from a CUDA device to pinned memory, so that the device need not wait."""
    if tensor.device.type != "cuda":
        return torch.empty_like(tensor, device="cpu").copy_(tensor)
    try:
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    except RuntimeError:  # no more memory can be pinned
        return tensor.to("cpu")
    # Both copies, there and back, are queued in order on the same stream; PyTorch reuses the buffer only after both.
    return host.copy_(tensor, non_blocking=True)


class PeakMeter:
    """The most memory that one guided step took beyond what was allocated when it started.

    On CUDA it is PyTorch's own peak if the step set a new one, otherwise the most seen at the end of the forward pass
    and of each recomputed block: PyTorch's peak is the process's, and resetting it would spoil what others measure.
    On other devices nothing is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._start = self._most = self._allocated()
        self._peak_before = self._peak()

    def sample(self) -> None:
        self._most = max(self._most, self._allocated())

    def result(self) -> tuple[int, str] | None:
        """Return (bytes, how they were measured), None on devices where nothing is."""
        if self._device is None:
            return None
        peak = self._peak()
        if peak > self._peak_before:
            return peak - self._start, "allocated, PyTorch's peak"
        return self._most - self._start, "allocated, seen between blocks"

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated(self._device) if self._device is not None else 0

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) if self._device is not None else 0
