"""Checks for masks with nothing to repaint or nothing to keep."""

from __future__ import annotations

from torch import Tensor


def is_empty(mask: Tensor) -> bool:
    """Whether there is nothing to repaint in any image of the batch."""
    return not any(bool((component > 0).any()) for component in _components(mask))


def is_full(mask: Tensor) -> bool:
    """Whether there is nothing to keep in any image of the batch."""
    return all(bool((component >= 1).all()) for component in _components(mask))


def check_keeps_something(mask: Tensor) -> None:
    """Raise ValueError for a noise mask that would repaint everything."""
    if is_full(mask):
        shape = tuple(_components(mask)[0].shape)
        raise ValueError(
            f"nothing to keep: the mask of shape {shape} is 1 everywhere, and 1 means repaint. If it is "
            "inverted, add an Invert Mask node; to generate a whole picture, use KSampler"
        )


def _components(mask: Tensor) -> list[Tensor]:
    return list(mask.unbind()) if mask.is_nested else [mask]
