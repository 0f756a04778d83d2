"""The masks of LaMa (Suvorov et al., "Resolution-robust Large Mask Inpainting"), which the paper evaluates on.

A mask consists of either strokes or boxes. Parameters were published for images of 256 and 512 pixels; for other sizes,
the nearer of the two is scaled. Masks are drawn in integer arithmetic, so a seed gives the same mask everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .draw import Draws, Hole, segment_pixels

# sin and cos of 0.01, 1.01, 2.01 and 3.01 rad as literals, because math libraries differ in the last bit.
ANGLES = (
    (0.009999833334166664, 0.9999500004166653),
    (0.8468318446180152, 0.5318607213743555),
    (0.905090563325201, -0.4252188520981522),
    (0.13121319215018423, -0.9913541739488259),
)
MAX_SEGMENTS = 5  # per stroke
MAX_COVERAGE = 0.5  # a mask that covers more is redrawn
MAX_REDRAWS = 100  # then the smallest hole so far is used (happens in images of a few pixels)
MIN_SIDE = 8  # smallest image side, pixels


@dataclass(frozen=True)
class IrregularPreset:
    """LaMa's parameters for one kind of mask at one image size; lengths in pixels."""

    strokes: tuple[int, int]  # number of strokes: uniform in {min .. max+1}
    max_width: int  # width: min_width + {0 .. max_width-1}
    max_length: int  # length: min_length + {0 .. max_length-1}
    min_width: int = 5
    min_length: int = 10
    box_weight: float = 0.0  # relative to weight 1 for strokes
    box_margin: int = 0  # distance between boxes and the edge of the image, at least
    box_side: tuple[int, int] = (1, 1)  # each side: uniform in {min .. max}
    boxes: tuple[int, int] = (1, 1)  # number of boxes: uniform in {min .. max}

    def scaled(self, factor: float) -> IrregularPreset:
        """Return the same preset for another image size: all lengths times `factor`, at least 1 pixel."""

        def size(pixels: int) -> int:
            return max(1, math.floor(pixels * factor + 0.5))

        return replace(
            self,
            max_width=size(self.max_width),
            max_length=size(self.max_length),
            min_width=size(self.min_width),
            min_length=size(self.min_length),
            box_margin=size(self.box_margin) if self.box_margin else 0,
            box_side=(size(self.box_side[0]), size(self.box_side[1])),
        )


PRESETS = {
    "thin": {
        256: IrregularPreset(strokes=(4, 50), max_width=10, max_length=40),
        512: IrregularPreset(strokes=(4, 70), max_width=20, max_length=100),
    },
    "medium": {
        256: IrregularPreset((4, 5), 50, 100, box_weight=0.3, box_side=(10, 50), boxes=(1, 5)),
        512: IrregularPreset((4, 10), 100, 200, box_weight=0.3, box_side=(30, 150), boxes=(1, 5)),
    },
    "thick": {
        256: IrregularPreset((1, 5), 100, 200, box_weight=0.3, box_margin=10, box_side=(30, 150), boxes=(1, 3)),
        512: IrregularPreset((1, 5), 250, 450, box_weight=0.3, box_margin=10, box_side=(30, 300), boxes=(1, 4)),
    },
}


def preset_for(kind: str, height: int, width: int) -> IrregularPreset:
    """Return LaMa's parameters for an image: those of the nearest published size, scaled by sqrt(H*W)/size.

    Raises:
        ValueError: a side is below `MIN_SIDE`.
    """
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"size is {height}x{width}; a {kind} mask needs at least {MIN_SIDE}x{MIN_SIDE} pixels")
    side = math.sqrt(height * width)
    nearest = min(PRESETS[kind], key=lambda size: abs(math.log(side / size)))
    preset = PRESETS[kind][nearest]
    return preset if side == nearest else preset.scaled(side / nearest)


def stroke_segments(
    draws: Draws, shape: tuple[int, int], preset: IrregularPreset, mirrored: bool
) -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
    """Draw a random stroke: (start, end, width) of each segment, points (x, y), starting where the last one ended."""
    height, width = shape
    start = draws.below(width), draws.below(height)
    for _ in range(draws.between(1, MAX_SEGMENTS)):
        sine, cosine = ANGLES[draws.below(len(ANGLES))]
        length = preset.min_length + draws.below(preset.max_length)
        thickness = preset.min_width + draws.below(preset.max_width)
        end_x = int(start[0] + length * (-sine if mirrored else sine))
        end_y = int(start[1] + length * cosine)
        end = min(max(end_x, 0), width), min(max(end_y, 0), height)  # LaMa clips to the size, not to size - 1
        yield start, end, thickness
        start = end


def draw_strokes(draws: Draws, shape: tuple[int, int], preset: IrregularPreset) -> Hole:
    """Draw random strokes, every other one mirrored."""
    hole = np.zeros(shape, dtype=bool)
    for index in range(draws.between(preset.strokes[0], preset.strokes[1] + 1)):
        for start, end, thickness in stroke_segments(draws, shape, preset, mirrored=index % 2 == 0):
            rows, columns, _ = segment_pixels(shape, start, end, thickness)
            hole[rows, columns] = True
    return hole


def draw_boxes(draws: Draws, shape: tuple[int, int], preset: IrregularPreset) -> Hole:
    """Draw random boxes inside the margin."""
    height, width = shape
    margin = min(preset.box_margin, (min(shape) - 1) // 2)
    hole = np.zeros(shape, dtype=bool)
    for _ in range(draws.between(*preset.boxes)):
        box_height = min(draws.between(*preset.box_side), height - 2 * margin)
        box_width = min(draws.between(*preset.box_side), width - 2 * margin)
        top = draws.between(margin, height - margin - box_height)
        left = draws.between(margin, width - margin - box_width)
        hole[top : top + box_height, left : left + box_width] = True
    return hole


def irregular_mask(kind: str, height: int, width: int, seed: int) -> Hole:
    """Draw a "thin", "medium" or "thick" mask that covers at most half of the image."""
    preset = preset_for(kind, height, width)
    draws = Draws(seed)
    smallest = np.ones((height, width), dtype=bool)
    for _ in range(MAX_REDRAWS):
        boxes = draws.uniform() < preset.box_weight / (1 + preset.box_weight)
        hole = (draw_boxes if boxes else draw_strokes)(draws, (height, width), preset)
        if hole.any() and hole.mean() <= MAX_COVERAGE:
            return hole
        if hole.sum() < smallest.sum():
            smallest = hole
    return smallest


def coverage_mask(height: int, width: int, seed: int, coverage: float = 0.5, strokes: str = "thick") -> Hole:
    """Draw strokes until the hole has exactly round(coverage*H*W) pixels (at least 1, at most H*W-1).

    The last stroke ends where the count is exact.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        seed: of the strokes.
        coverage: the hole's share of the image, between 0 and 1.
        strokes: "thin", "medium" or "thick".

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it must be above 0 and below 1")
    if strokes not in PRESETS:
        raise ValueError(f"strokes is {strokes!r}; it must be one of {', '.join(PRESETS)}")
    preset = preset_for(strokes, height, width)
    draws = Draws(seed)
    target = min(max(math.floor(coverage * height * width + 0.5), 1), height * width - 1)
    hole = np.zeros((height, width), dtype=bool)
    missing, index = target, 0
    while missing:
        for start, end, thickness in stroke_segments(draws, hole.shape, preset, mirrored=index % 2 == 0):
            rows, columns, from_start = segment_pixels(hole.shape, start, end, thickness)
            new = ~hole[rows, columns]
            rows, columns, from_start = rows[new], columns[new], from_start[new]
            keep = np.argsort(from_start, kind="stable")[:missing]  # nearest to the start first, so the tip is round
            hole[rows[keep], columns[keep]] = True
            missing -= len(keep)
        index += 1
    return hole
