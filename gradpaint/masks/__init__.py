"""Masks for inpainting: LaMa's thin, medium and thick, random pixels, shapes, outpainting, a given coverage.

1 is the hole (repaint), 0 is known. The same arguments give the same mask on every machine.
"""

import functools
import inspect

import numpy as np
import torch

from .irregular import PRESETS, coverage_mask, irregular_mask
from .shapes import box_mask, ellipse_mask, half_mask, outpaint_mask, random_pixels_mask

_GENERATORS = {
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


def mask_options(kind):
    """Names of the options that `make_mask` takes for this kind."""
    if kind not in MASK_KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(MASK_KINDS)}")
    parameters = inspect.signature(_GENERATORS[kind]).parameters
    return tuple(name for name in parameters if name not in ("kind", "height", "width", "seed"))


def make_mask(kind, height, width, seed=0, **options):
    """One mask, float32 (1, 1, H, W), 1 in the hole and 0 where the image is known.

    kind: one of MASK_KINDS.  height, width: pixels, >= 2 (>= 8 where strokes are drawn).  seed: integer >= 0.
    options: random_pixels: probability; box, ellipse: coverage, position ("center" or "random"); half: side;
    outpaint: left, right, top, bottom (pixels); coverage: coverage, strokes ("thin", "medium" or "thick").
    Raises ValueError for an unknown kind or option and for a value out of range.
    """
    allowed = mask_options(kind)
    for name in options:
        if name not in allowed:
            raise ValueError(f"option {name!r} is unknown for a {kind} mask; it takes {', '.join(allowed) or 'none'}")
    for name, value in (("height", height), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 2:
            raise ValueError(f"{name} is {value!r}; it must be an integer >= 2")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be an integer >= 0")
    hole = _GENERATORS[kind](int(height), int(width), seed, **options)
    return torch.from_numpy(hole.astype(np.float32))[None, None]


def make_masks(kind, height, width, seeds, **options):
    """One mask per seed, float32 (N, 1, H, W); `seeds` is an iterable of integers. See `make_mask`."""
    masks = [make_mask(kind, height, width, seed, **options) for seed in seeds]
    if not masks:
        raise ValueError("seeds is empty; give at least one")
    return torch.cat(masks)


def masks_above(min_coverage, kind, height, width, count, first_seed=0, **options):
    """The first `count` masks, counting seeds up from `first_seed`, whose hole covers at least that share of the image.

    LaMa's generators now and then give a hole of a few pixels, on which methods hardly differ.
    Returns float32 (count, 1, H, W). Raises ValueError if not one of 1000 seeds in a row reaches min_coverage.
    """
    masks, seed, last = [], first_seed, first_seed
    while len(masks) < count:
        mask = make_mask(kind, height, width, seed, **options)
        if mask.mean() >= min_coverage:
            masks.append(mask)
            last = seed
        elif seed - last >= 1000:
            raise ValueError(f"min_coverage is {min_coverage}; of 1000 {kind} masks at {height}x{width} none has it")
        seed += 1
    return torch.cat(masks)
