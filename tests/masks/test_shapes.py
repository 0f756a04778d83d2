"""Random pixels, box, ellipse, half, outpainting border."""

import math

import numpy as np
import pytest

from gradpaint.masks import make_mask


def hole(kind, height, width, seed=0, **options):
    return make_mask(kind, height, width, seed, **options)[0, 0].numpy().astype(bool)


@pytest.mark.parametrize("probability", [0.8, 0.5, 0.1])
def test_random_pixels(probability):
    masks = np.stack([hole("random_pixels", 64, 64, seed, probability=probability) for seed in range(10)])
    error = math.sqrt(probability * (1 - probability) / masks.size)
    assert abs(masks.mean() - probability) < 4 * error
    neighbors = (masks[..., 1:] & masks[..., :-1]).mean()  # independent: the joint probability is the square
    assert abs(neighbors - probability**2) < 8 * error
    assert hole("random_pixels", 64, 64).mean() == pytest.approx(0.8, abs=0.03)


def test_box_in_the_center():
    mask = hole("box", 64, 32)
    expected = np.zeros((64, 32), dtype=bool)
    expected[16:48, 8:24] = True
    assert np.array_equal(mask, expected)


def test_random_box_moves_but_keeps_its_size():
    masks = [hole("box", 40, 60, seed, position="random", coverage=0.1) for seed in range(10)]
    assert {int(mask.sum()) for mask in masks} == {13 * 19}  # sqrt(0.1) of each side
    assert len({np.flatnonzero(mask)[0] for mask in masks}) > 5


def test_ellipse():
    mask = hole("ellipse", 100, 200, coverage=0.3)
    assert mask.mean() == pytest.approx(0.3, abs=0.005)
    assert np.array_equal(mask, mask[::-1]) and np.array_equal(mask, mask[:, ::-1])
    y, x = np.nonzero(mask)
    axis = math.sqrt(0.3 / math.pi)
    inside = ((y - 49.5) / (100 * axis)) ** 2 + ((x - 99.5) / (200 * axis)) ** 2
    assert inside.max() < 1.03
    touching = hole("ellipse", 64, 64, coverage=math.pi / 4)
    assert touching[0].any() and touching[:, 0].any() and not touching[0, 0]


@pytest.mark.parametrize("side, corner", [("left", (0, 0)), ("top", (0, 0)), ("right", (0, -1)), ("bottom", (-1, 0))])
def test_half(side, corner):
    mask = hole("half", 6, 8, side=side)
    assert mask.sum() == 24 and mask[corner]
    assert len(np.unique(mask, axis=0 if side in ("left", "right") else 1)) in (1, 6, 8)
    other = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
    assert np.array_equal(~mask, hole("half", 6, 8, side=other))


def test_half_of_an_odd_size_is_the_smaller_half():
    assert hole("half", 4, 5).sum() == 8
    assert hole("half", 5, 4, side="bottom").sum() == 8


def test_outpaint():
    mask = hole("outpaint", 10, 12, left=3, bottom=2)
    assert not mask[:8, 3:].any()
    assert mask.sum() == 10 * 12 - 8 * 9
    assert hole("outpaint", 64, 64).sum() == 64 * 64 - 48 * 48


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("random_pixels", {"probability": 0}, "probability is 0"),
        ("random_pixels", {"probability": 1.0}, "probability is 1.0"),
        ("box", {"coverage": 1.0}, "coverage is 1.0"),
        ("box", {"position": "left"}, "position is 'left'.*center, random"),
        ("ellipse", {"coverage": 0.9}, "coverage is 0.9.*0.785"),
        ("half", {"side": "middle"}, "side is 'middle'.*left, right, top, bottom"),
        ("outpaint", {"left": -1}, "left is -1"),
        ("outpaint", {"top": 1.5}, "top is 1.5"),
        ("outpaint", {"left": 0}, "nothing to repaint"),
        ("outpaint", {"left": 10, "right": 6}, "left 10, right 6.*16x16"),
    ],
)
def test_errors(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make_mask(kind, 16, 16, **options)
