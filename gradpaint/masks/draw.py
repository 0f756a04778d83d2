"""What every mask generator needs: random numbers that never change, thick lines in exact integer arithmetic."""

import numpy as np


class Draws:
    """Random numbers of one seed, the same on every machine and with every numpy.

    numpy promises that the raw output of PCG64 never changes, but not what `Generator`'s methods make of it, so only
    `random_raw` is used.
    """

    def __init__(self, seed):
        """seed: integer >= 0."""
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seed is {seed!r}; it must be an integer >= 0")
        self._bits = np.random.PCG64(int(seed))

    def below(self, count):
        """One integer, uniform in 0 .. count-1 (0 if count is 1 or less)."""
        return int(self._bits.random_raw()) % max(int(count), 1)

    def between(self, low, high):
        """One integer, uniform in low .. high, both included."""
        return low + self.below(high - low + 1)

    def uniform(self, shape=()):
        """float64 in [0, 1), array of that shape."""
        count = int(np.prod(shape, dtype=np.int64))
        raw = np.asarray(self._bits.random_raw(count), dtype=np.uint64)
        return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def segment_pixels(shape, start, end, width):
    """Pixels whose centre is at most width/2 from the segment start-end: a thick line with round ends.

    shape: (H, W). start, end: (x, y) integers, may lie outside the image. width: pixels, integer >= 1.
    Returns (rows, columns, squared distance to start), int64 arrays in row-major order. All in integers: no rounding.
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
    along = (x - x0) * dx + (y - y0) * dy  # projection on the segment, times its length
    across = (x - x0) * dy - (y - y0) * dx  # distance to the infinite line, times its length
    length2 = dx * dx + dy * dy
    from_start = (x - x0) ** 2 + (y - y0) ** 2
    from_end = (x - x1) ** 2 + (y - y1) ** 2
    beside = (along >= 0) & (along <= length2) & (4 * across**2 <= width**2 * length2) & (length2 > 0)
    inside = beside | (4 * from_start <= width**2) | (4 * from_end <= width**2)
    rows, columns = np.nonzero(inside)
    return rows + top, columns + left, from_start[rows, columns]
