"""Harmless stand-ins for classes that PyTorch Lightning's checkpoints name beside their weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch


class ModelCheckpoint:
    """In place of the callback that Lightning stores as a key of the training state."""


def scalar(*_: object) -> None:
    """In place of NumPy's maker of scalars, such as the best score so far. Nothing here reads them."""


ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"
scalar.__module__ = "numpy.core.multiarray"
_ALLOWED = [ModelCheckpoint, scalar, np.dtype, type(np.dtype("float64"))]


def stand_ins() -> AbstractContextManager:
    """While this lasts, `torch.load(weights_only=True)` takes these names for the stand-ins; no other code is run."""
    safe_globals = getattr(torch.serialization, "safe_globals", None)  # torch 2.4 has none
    return nullcontext() if safe_globals is None else safe_globals(_ALLOWED)
