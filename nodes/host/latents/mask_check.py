"""Masks with nothing to repaint or nothing to keep."""

from __future__ import annotations

from torch import Tensor


def is_empty(mask: Tensor) -> bool:
    """Whether nothing is to be repainted, in no image of the batch."""
    return not any(bool((part > 0).any()) for part in _parts(mask))


def is_full(mask: Tensor) -> bool:
    """Whether nothing is to be kept, in no image of the batch."""
    return all(bool((part >= 1).all()) for part in _parts(mask))


def check_keeps_something(mask: Tensor) -> None:
    """ValueError for a noise mask by which everything would be repainted."""
    if is_full(mask):
        shape = tuple(_parts(mask)[0].shape)
        raise ValueError(
            f"nothing to keep: the mask of shape {shape} is 1 everywhere, and 1 means repaint. If it is "
            "inverted, put Invert Mask before it; to make a whole picture, use KSampler"
        )


def _parts(mask: Tensor) -> list[Tensor]:
    return mask.unbind() if mask.is_nested else [mask]
