"""Masks that need no strokes: random pixels, box, ellipse, half of the image, outpainting border."""

import math

import numpy as np

from .draw import Draws

SIDES = ("left", "right", "top", "bottom")
POSITIONS = ("center", "random")


def random_pixels_mask(height, width, seed, probability=0.8):
    """(H, W) bool: each pixel is in the hole with that probability (section 7 of the paper: 0.8)."""
    if not 0 < probability < 1:
        raise ValueError(f"probability is {probability}; it must lie between 0 and 1, both excluded")
    return Draws(seed).uniform((height, width)) < probability


def _corner(height, width, sides, seed, position):
    """Top left corner (row, column) of a region of those sides."""
    if position not in POSITIONS:
        raise ValueError(f"position is {position!r}; it must be one of {', '.join(POSITIONS)}")
    free = height - sides[0], width - sides[1]
    if position == "center":
        return free[0] // 2, free[1] // 2
    draws = Draws(seed)
    return draws.between(0, free[0]), draws.between(0, free[1])


def _side(fraction, size):
    return min(max(math.floor(fraction * size + 0.5), 1), size)


def box_mask(height, width, seed, coverage=0.25, position="center"):
    """(H, W) bool: one box of the image's proportions. coverage: its share of the area; position: center or random."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it must lie between 0 and 1, both excluded")
    sides = _side(math.sqrt(coverage), height), _side(math.sqrt(coverage), width)
    top, left = _corner(height, width, sides, seed, position)
    hole = np.zeros((height, width), dtype=bool)
    hole[top : top + sides[0], left : left + sides[1]] = True
    return hole


def ellipse_mask(height, width, seed, coverage=0.25, position="center"):
    """(H, W) bool: one ellipse of the image's proportions. coverage: its share of the area, at most pi/4."""
    if not 0 < coverage <= math.pi / 4:
        raise ValueError(f"coverage is {coverage}; it must lie above 0 and at most at pi/4 = {math.pi / 4:.3f}")
    axis = math.sqrt(4 * coverage / math.pi)
    sides = _side(axis, height), _side(axis, width)
    top, left = _corner(height, width, sides, seed, position)
    y, x = np.mgrid[:height, :width]
    # pixel centres, in integers: (2*(y-top)+1-h)/h is -1 .. 1 over the ellipse
    across = (2 * (y - top) + 1 - sides[0]) * sides[1]
    along = (2 * (x - left) + 1 - sides[1]) * sides[0]
    return across**2 + along**2 <= (sides[0] * sides[1]) ** 2


def half_mask(height, width, seed, side="left"):
    """(H, W) bool: the left, right, top or bottom half is the hole. The seed plays no part."""
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; it must be one of {', '.join(SIDES)}")
    hole = np.zeros((height, width), dtype=bool)
    if side in ("left", "right"):
        hole[:, : width // 2] = True
        return hole if side == "left" else hole[:, ::-1].copy()
    hole[: height // 2] = True
    return hole if side == "top" else hole[::-1].copy()


def outpaint_mask(height, width, seed, left=None, right=None, top=None, bottom=None):
    """(H, W) bool: a border of that many pixels per side is the hole. The seed plays no part.

    Sides left out are 0; with no side given, an eighth of the image on every side.
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
