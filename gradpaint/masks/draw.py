"""Shared by all mask generators: random numbers that never change, and thick lines in exact integer arithmetic."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Hole: TypeAlias = npt.NDArray[np.bool_]  # (H, W), True where the image is to be repainted
Pixels: TypeAlias = npt.NDArray[np.int64]


class Draws:
    """Random numbers that depend on a seed only, not on the machine or the version of numpy.

    numpy promises that the raw output of PCG64 never changes, but not the results of `Generator`'s methods. So only
    `random_raw` is used.

    Raises:
        ValueError: the seed is not an integer of at least 0.
    """

    def __init__(self, seed: int):
        check_seed(seed)
        self._bits = np.random.PCG64(int(seed))

    def below(self, count: int) -> int:
        """Draw an integer uniformly from 0 .. count-1 (0 if count is 1 or less)."""
        return int(self._bits.random_raw()) % max(int(count), 1)

    def between(self, low: int, high: int) -> int:
        """Draw an integer uniformly from low .. high, both included."""
        return low + self.below(high - low + 1)

    def uniform(self, shape: tuple[int, ...] = ()) -> npt.NDArray[np.float64]:
        """Draw float64 numbers uniformly from [0, 1), in an array of that shape."""
        count = int(np.prod(shape, dtype=np.int64))
        raw = np.asarray(self._bits.random_raw(count), dtype=np.uint64)
        return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def check_seed(seed: int) -> None:
    """Raise ValueError unless the seed is an integer of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be an integer >= 0")


def segment_pixels(
    shape: tuple[int, int], start: tuple[int, int], end: tuple[int, int], width: int
) -> tuple[Pixels, Pixels, Pixels]:
    """Find the pixels whose center is at most width/2 from a segment: a thick line with round ends.

    Everything is computed in integers, so nothing is rounded.

    Args:
        shape: (H, W) of the image.
        start: (x, y) of the segment's start, inside or outside the image.
        end: (x, y) of its end.
        width: in pixels, at least 1.

    Returns:
        Rows, columns and squared distances to the start, (N,) each, in row-major order.
    """
    height, image_width = shape
    (x0, y0), (x1, y1) = start, end
    reach = (width + 1) // 2
    left, right = max(min(x0, x1) - reach, 0), min(max(x0, x1) + reach, image_width - 1)
    top, bottom = max(min(y0, y1) - reach, 0), min(max(y0, y1) + reach, height - 1)
    if left > right or top > bottom:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    y, x = np.mgrid[top : bottom + 1, left : right + 1].astype(np.int64)
    dx, dy = x1 - x0, y1 - y0
    along = (x - x0) * dx + (y - y0) * dy  # projection onto the segment, times its length
    across = (x - x0) * dy - (y - y0) * dx  # distance to the infinite line, times its length
    length2 = dx * dx + dy * dy
    from_start = (x - x0) ** 2 + (y - y0) ** 2
    from_end = (x - x1) ** 2 + (y - y1) ** 2
    beside = (along >= 0) & (along <= length2) & (4 * across**2 <= width**2 * length2) & (length2 > 0)
    inside = beside | (4 * from_start <= width**2) | (4 * from_end <= width**2)
    rows, columns = np.nonzero(inside)
    return rows + top, columns + left, from_start[rows, columns]
