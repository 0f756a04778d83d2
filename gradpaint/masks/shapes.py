"""Masks without strokes: random pixels, box, ellipse, half of the image, outpainting border."""

from __future__ import annotations

import math

import numpy as np

from .draw import Draws, Hole

SIDES = ("left", "right", "top", "bottom")
POSITIONS = ("center", "random")


def random_pixels_mask(height: int, width: int, seed: int, probability: float = 0.8) -> Hole:
    """Put each pixel in the hole with that probability (0.8 in section 7 of the paper)."""
    if not 0 < probability < 1:
        raise ValueError(f"probability is {probability}; it must be above 0 and below 1")
    return Draws(seed).uniform((height, width)) < probability


def _corner(height: int, width: int, sides: tuple[int, int], seed: int, position: str) -> tuple[int, int]:
    """Choose the top left corner (row, column) of a region with these sides (height, width)."""
    if position not in POSITIONS:
        raise ValueError(f"position is {position!r}; it must be one of {', '.join(POSITIONS)}")
    free = height - sides[0], width - sides[1]
    if position == "center":
        return free[0] // 2, free[1] // 2
    draws = Draws(seed)
    return draws.between(0, free[0]), draws.between(0, free[1])


def _side(fraction: float, size: int) -> int:
    return min(max(math.floor(fraction * size + 0.5), 1), size)


def box_mask(height: int, width: int, seed: int, coverage: float = 0.25, position: str = "center") -> Hole:
    """Make a box with the image's proportions and this share of its area, in the center or at a random position."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it must be above 0 and below 1")
    sides = _side(math.sqrt(coverage), height), _side(math.sqrt(coverage), width)
    top, left = _corner(height, width, sides, seed, position)
    hole = np.zeros((height, width), dtype=bool)
    hole[top : top + sides[0], left : left + sides[1]] = True
    return hole


def ellipse_mask(height: int, width: int, seed: int, coverage: float = 0.25, position: str = "center") -> Hole:
    """Make an ellipse with the image's proportions and this share of its area, at most pi/4."""
    if not 0 < coverage <= math.pi / 4:
        raise ValueError(f"coverage is {coverage}; it must be above 0 and at most pi/4 = {math.pi / 4:.3f}")
    axis = math.sqrt(4 * coverage / math.pi)
    sides = _side(axis, height), _side(axis, width)
    top, left = _corner(height, width, sides, seed, position)
    y, x = np.mgrid[:height, :width]
    # Pixel centers, in integers: (2*(y-top)+1-h)/h is -1 .. 1 over the ellipse.
    across = (2 * (y - top) + 1 - sides[0]) * sides[1]
    along = (2 * (x - left) + 1 - sides[1]) * sides[0]
    return across**2 + along**2 <= (sides[0] * sides[1]) ** 2


def half_mask(height: int, width: int, seed: int, side: str = "left") -> Hole:
    """Make the left, right, top or bottom half the hole. The seed has no effect."""
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; it must be one of {', '.join(SIDES)}")
    hole = np.zeros((height, width), dtype=bool)
    if side in ("left", "right"):
        hole[:, : width // 2] = True
        return hole if side == "left" else hole[:, ::-1].copy()
    hole[: height // 2] = True
    return hole if side == "top" else hole[::-1].copy()


def outpaint_mask(
    height: int,
    width: int,
    seed: int,
    left: int | None = None,
    right: int | None = None,
    top: int | None = None,
    bottom: int | None = None,
) -> Hole:
    """Make a border of that many pixels per side the hole. The seed has no effect.

    Sides that are not given are 0; if none is given, each is an eighth of the image.
    """
    given = {"left": left, "right": right, "top": top, "bottom": bottom}
    if all(value is None for value in given.values()):
        given = {"left": width // 8, "right": width // 8, "top": height // 8, "bottom": height // 8}
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or value != int(value) or value < 0):
            raise ValueError(f"{name} is {value!r}; it must be a whole number of pixels >= 0")
    left, right, top, bottom = (int(given[name] or 0) for name in SIDES)
    if left + right + top + bottom == 0:
        raise ValueError(f"left, right, top and bottom are 0 for {height}x{width} pixels: there is nothing to repaint")
    if left + right >= width or top + bottom >= height:
        raise ValueError(
            f"borders left {left}, right {right}, top {top}, bottom {bottom} leave nothing of {height}x{width} known"
        )
    hole = np.ones((height, width), dtype=bool)
    hole[top : height - bottom, left : width - right] = False
    return hole
