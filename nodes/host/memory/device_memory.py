"""Free memory, out-of-memory errors and peaks, asked of the host and of PyTorch."""

from __future__ import annotations

import gc

import comfy.model_management
import torch
from torch import Tensor

# What backends without an exception class of their own say: CPU, MPS, DirectML, CUDA libraries.
OUT_OF_MEMORY_WORDS = (
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "could not allocate tensor",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)

# A guided step that recomputes all blocks needs 3 (Flux), 4 (SDXL) to 6 (SD3.5 large) times the host's estimate.
ROOM = 4


def free_memory(model, device: torch.device) -> int:
    """Bytes that the model's evaluation may take on the device. model: the host's BaseModel."""
    patcher = getattr(model, "current_patcher", None)
    if hasattr(patcher, "get_free_memory"):  # counts what the host can give back on demand
        return int(patcher.get_free_memory(device))
    return int(comfy.model_management.get_free_memory(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that an allocation failed, on whatever device."""
    known = getattr(comfy.model_management, "OOM_EXCEPTION", Exception)
    if isinstance(error, MemoryError) or (known is not Exception and isinstance(error, known)):
        return True
    if isinstance(error, getattr(torch, "OutOfMemoryError", ())):
        return True
    asked = getattr(comfy.model_management, "is_oom", None)
    if asked is not None and known is not Exception and asked(error):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY_WORDS)


def with_room(executor, model, noise_shape, *args, **kwargs):
    """`prepare_sampling` wrapper: the host leaves as much memory free of weights as for a batch ROOM times as large.

    It unloads other models for it and, where memory is short, streams more of this one's weights: enough for guided
    steps that recompute every block.
    """
    if all(isinstance(size, int) for size in noise_shape):
        noise_shape = [ROOM * noise_shape[0], *noise_shape[1:]]
    return executor(model, noise_shape, *args, **kwargs)


def give_back() -> None:
    """Return what an aborted evaluation held. Call it outside the except block: its traceback holds tensors."""
    gc.collect()
    comfy.model_management.soft_empty_cache()


def to_host(tensor: Tensor) -> Tensor:
    """A copy in host memory, pinned where the tensor is on a CUDA device, so that the device need not wait for it."""
    if tensor.device.type != "cuda":
        return torch.empty_like(tensor, device="cpu").copy_(tensor)
    try:
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    except RuntimeError:  # no more memory can be pinned
        return tensor.to("cpu")
    # Copies there and back are queued on the same stream, in order; PyTorch reuses the buffer only after both.
    return host.copy_(tensor, non_blocking=True)


class PeakMeter:
    """The most memory that one guided step took, beyond what was allocated at its start.

    On CUDA PyTorch's own peak where the step set a new one, else the most seen at the ends of forward and of each
    recomputed block: the peak is the process's, and resetting it would falsify what others measure. Elsewhere nothing.
    """

    def __init__(self, device: torch.device):
        self.device = device if device.type == "cuda" else None
        self.start = self.most = self._now()
        self._peak_before = self._peak()

    def sample(self) -> None:
        self.most = max(self.most, self._now())

    def result(self) -> tuple[int, str] | None:
        """(bytes, how they were measured), None where nothing was."""
        if self.device is None:
            return None
        peak = self._peak()
        if peak > self._peak_before:
            return peak - self.start, "allocated, PyTorch's peak"
        return self.most - self.start, "allocated, seen between blocks"

    def _now(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.device is not None else 0

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.device is not None else 0
