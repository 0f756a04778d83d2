"""Masks for inpainting: LaMa's thin, medium and thick, random pixels, shapes, outpainting, a given coverage.

Masks are 1 in the hole (repaint), 0 where the image is known. The same arguments give the same mask on every machine.
torch is imported only when a mask is made, so the command line lists the kinds without it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable

import numpy as np

from .draw import Hole, check_seed
from .irregular import PRESETS, coverage_mask, irregular_mask
from .shapes import box_mask, ellipse_mask, half_mask, outpaint_mask, random_pixels_mask

if TYPE_CHECKING:
    from torch import Tensor

# Each takes height, width, seed and options of its own.
_GENERATORS: dict[str, Callable[..., Hole]] = {
    **{kind: functools.partial(irregular_mask, kind) for kind in PRESETS},
    "random_pixels": random_pixels_mask,
    "box": box_mask,
    "ellipse": ellipse_mask,
    "half": half_mask,
    "outpaint": outpaint_mask,
    "coverage": coverage_mask,
}
MASK_KINDS = tuple(_GENERATORS)

__all__ = ["MASK_KINDS", "make_mask", "make_masks", "mask_options", "masks_above"]


def mask_options(kind: str) -> tuple[str, ...]:
    """Return the names of the options that `make_mask` takes for this kind.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in MASK_KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(MASK_KINDS)}")
    parameters = inspect.signature(_GENERATORS[kind]).parameters
    return tuple(name for name in parameters if name not in ("kind", "height", "width", "seed"))


def make_mask(kind: str, height: int, width: int, seed: int = 0, **options: float | str) -> Tensor:
    """Make one mask.

    Args:
        kind: one of `MASK_KINDS`.
        height: in pixels, at least 2 (8 for kinds with strokes).
        width: in pixels, at least 2 (8 for kinds with strokes).
        seed: integer of at least 0.
        options: for random_pixels: probability; box and ellipse: coverage, position ("center" or "random"); half: side;
            outpaint: left, right, top, bottom (pixels); coverage: coverage, strokes ("thin", "medium" or "thick").

    Returns:
        (1, 1, H, W) float32.

    Raises:
        ValueError: unknown kind or option, or a value out of range.
    """
    import torch

    allowed = mask_options(kind)
    for name in options:
        if name not in allowed:
            raise ValueError(f"option {name!r} is unknown for a {kind} mask; it takes {', '.join(allowed) or 'none'}")
    for name, value in (("height", height), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 2:
            raise ValueError(f"{name} is {value!r}; it must be an integer >= 2")
    check_seed(seed)
    hole = _GENERATORS[kind](int(height), int(width), seed, **options)
    return torch.from_numpy(hole.astype(np.float32))[None, None]


def make_masks(kind: str, height: int, width: int, seeds: Iterable[int], **options: float | str) -> Tensor:
    """Make one mask per seed, (N, 1, H, W) float32; arguments and errors as in `make_mask`.

    Raises:
        ValueError: no seeds.
    """
    import torch

    masks = [make_mask(kind, height, width, seed, **options) for seed in seeds]
    if not masks:
        raise ValueError("seeds is empty; give at least one")
    return torch.cat(masks)


def masks_above(
    min_coverage: float, kind: str, height: int, width: int, count: int, first_seed: int = 0, **options: float | str
) -> Tensor:
    """Make masks whose hole covers at least a given share of the image, skipping seeds whose mask covers less.

    LaMa's generators occasionally produce a hole of a few pixels, on which methods hardly differ.

    Args:
        min_coverage: the share, 0 to 1.
        kind: see `make_mask`, as for `height`, `width` and `options`.
        height: in pixels.
        width: in pixels.
        count: number of masks.
        first_seed: the first seed to try; the others follow in order.
        options: of the kind.

    Returns:
        (count, 1, H, W) float32.

    Raises:
        ValueError: see `make_mask`, or 1000 masks in a row covered less.
    """
    import torch

    masks: list[Tensor] = []
    seed, last = first_seed, first_seed
    while len(masks) < count:
        mask = make_mask(kind, height, width, seed, **options)
        if mask.mean() >= min_coverage:
            masks.append(mask)
            last = seed
        elif seed - last >= 1000:
            raise ValueError(
                f"min_coverage is {min_coverage}; none of 1000 {kind} masks at {height}x{width} reaches it"
            )
        seed += 1
    return torch.cat(masks)
