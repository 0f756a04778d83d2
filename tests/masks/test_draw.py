"""Random numbers and thick lines are the same on every machine."""

import numpy as np
import pytest

from gradpaint.masks.draw import Draws, segment_pixels


def distance_to_segment(point, start, end):
    """Return the distance, derived independently: the nearest point by clamping, in floats."""
    start, end, point = (np.asarray(p, dtype=float) for p in (start, end, point))
    direction = end - start
    t = 0.0 if not direction.any() else np.clip(np.dot(point - start, direction) / np.dot(direction, direction), 0, 1)
    return np.linalg.norm(point - start - t * direction)


@pytest.mark.parametrize("start, end", [((3, 4), (20, 11)), ((20, 2), (5, 15)), ((7, 7), (7, 7)), ((-5, 3), (9, 40))])
@pytest.mark.parametrize("width", [1, 2, 5, 10])
def test_pixels_are_those_within_half_a_width(start, end, width):
    shape = (16, 24)
    rows, columns, from_start = segment_pixels(shape, start, end, width)
    drawn = np.zeros(shape, dtype=bool)
    drawn[rows, columns] = True
    for y in range(shape[0]):
        for x in range(shape[1]):
            gap = distance_to_segment((x, y), start, end) - width / 2
            if abs(gap) > 1e-9:
                assert drawn[y, x] == (gap < 0), (x, y)
    assert np.array_equal(from_start, (columns - start[0]) ** 2 + (rows - start[1]) ** 2)


def test_horizontal_line_of_width_three_with_round_ends():
    rows, columns, _ = segment_pixels((7, 9), (2, 3), (6, 3), 3)
    drawn = np.zeros((7, 9), dtype=int)
    drawn[rows, columns] = 1
    assert drawn.sum(axis=1).tolist() == [0, 0, 7, 7, 7, 0, 0]  # 1.5 pixels around the line: columns 1 .. 7 in each row
    assert drawn[2].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]


def test_line_outside_the_image_draws_nothing():
    assert all(len(part) == 0 for part in segment_pixels((8, 8), (20, 20), (30, 25), 4))


def test_draws_are_pcg64_raw_numbers():
    raw = [int(np.random.PCG64(7).random_raw(4)[i]) for i in range(4)]
    draws = Draws(7)
    assert [draws.below(10), draws.between(3, 8), draws.below(1)] == [raw[0] % 10, 3 + raw[1] % 6, 0]
    assert float(draws.uniform()) == (raw[3] >> 11) / 2**53


def test_draws_cover_their_range():
    draws = Draws(0)
    assert {draws.between(2, 5) for _ in range(200)} == {2, 3, 4, 5}
    values = draws.uniform((1000,))
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.04


@pytest.mark.parametrize("seed", [-1, 1.5, "3", True, None])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="seed is"):
        Draws(seed)
