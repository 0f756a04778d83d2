"""Estimates: what a plain backward pass saves, and which blocks' activations fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .checkpoint import Block

# A plain backward pass saves at most this many times the outputs of all linear and convolution layers, if they had the
# latent's size. Counted on full-size networks: SDXL 0.2, SD1.5 0.4 to 0.8, Flux and SD3.5 0.7, Lumina 2 1.1, Wan 1.8,
# LTXV 4.0, Flux 2 5.1. The host's own estimate for a forward pass is off by more (factors of 11 to 178).
SAVED_PER_OUTPUT = 6.0


def layer_outputs(network: nn.Module) -> int:
    """Count the numbers that all linear and convolution layers together output per token or pixel."""
    layers = (module for module in network.modules() if next(module.children(), None) is None)
    return sum(getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0) for layer in layers)


def expected_bytes(outputs: int, shape: Sequence[int], dtype: torch.dtype) -> float:
    """Return an upper limit of what a plain backward pass saves.

    Args:
        outputs: see layer_outputs.
        shape: of the state, (B, C, ...).
        dtype: the model's.
    """
    area = shape[0] * torch.Size(shape[2:]).numel()
    return SAVED_PER_OUTPUT * outputs * area * max(dtype.itemsize, 2)


def blocks_to_keep(blocks: list[Block], rest: int, transient: int, budget: float) -> list[Block] | None:
    """Choose the blocks whose activations are kept, as many as fit; None if the budget is too small even without any.

    What has to fit: the inputs of recomputed blocks, everything the other blocks save, and what one block saves while
    it is recomputed. At least as much as the largest block saves is set aside for memory that comes and goes.

    Args:
        blocks: with their sizes measured.
        rest: bytes saved outside of all blocks.
        transient: bytes that come and go.
        budget: bytes.
    """
    largest = max((block.largest for block in blocks), default=0)
    needed = rest + max(transient, largest) + largest + sum(block.inputs for block in blocks)
    if needed > budget:
        return None
    kept = []
    # The smallest first: that leaves the fewest to recompute.
    for block in sorted(blocks, key=lambda block: block.saved - block.inputs):
        needed += block.saved - block.inputs
        if needed > budget:
            break
        kept.append(block)
    return kept


def format_bytes(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
