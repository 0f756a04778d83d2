"""Contact sheets and loss plots: positions, and curves with unusual values."""

import math

import numpy as np
import pytest
import torch
from PIL import ImageColor

from gradpaint.drawing.contact_sheet import checkerboard, contact_sheet
from gradpaint.drawing.plots import COLORS, GUIDED, loss_plot


def flat(value):
    return torch.full((3, 8, 8), float(value))


def test_contact_sheet_shows_every_image_in_its_place():
    sheet = np.asarray(contact_sheet([[flat(-1), flat(1)], [flat(0), flat(-0.5)]], ["a", "b"], ["x", "y"], cell=40))
    row_ends = sheet.shape[0] - 8 - 40, sheet.shape[0] - 8
    left = sheet.shape[1] - 2 * 48
    second = sheet[row_ends[0] : row_ends[1]]
    assert (second[:, left : left + 40] == 128).all()
    assert (second[:, left + 48 : left + 88] == 64).all()
    first = sheet[row_ends[0] - 48 : row_ends[1] - 48]
    assert (first[:, left : left + 40] == 0).all() and (first[:, left + 48 : left + 88] == 255).all()
    assert (sheet[:32, left : left + 40] < 128).any()  # the label above


def test_contact_sheet_sizes():
    assert contact_sheet([[flat(0)] * 3], list("abc"), cell=20).width == 8 + 3 * (16 + 8)  # enlarged by a whole factor
    tall = contact_sheet([[torch.zeros(1, 3, 300, 100)]], ["a"], cell=60)
    assert tall.size == (8 + 20 + 8, 32 + 60 + 8)


def test_contact_sheet_errors():
    with pytest.raises(ValueError, match=r"\[2, 1\] images for 2 column labels"):
        contact_sheet([[flat(0), flat(0)], [flat(0)]], ["a", "b"])
    with pytest.raises(ValueError, match="1 row labels for 2 rows"):
        contact_sheet([[flat(0)], [flat(0)]], ["a"], ["x"])
    with pytest.raises(ValueError, match=r"rows have \[\]"):
        contact_sheet([], ["a"])


def pixels_of(plot, color):
    """Return the mean (x, y) and the number of the pixels of a color inside the axes, left of the legend."""
    near = np.abs(np.asarray(plot).astype(int) - ImageColor.getrgb(color)).max(axis=2) < 12
    near[:, int(plot.width * 0.6) :] = False
    rows, columns = np.nonzero(near)
    return (columns.mean(), rows.mean(), len(rows)) if len(rows) else (math.nan, math.nan, 0)


def test_loss_plot_is_logarithmic():
    """Of three constant curves, two differ by a factor of 100 and two by 10: their distances are as 2 to 1."""
    plot = loss_plot({"a": [100.0] * 20, "b": [1.0] * 20, "c": [0.1] * 20}, size=(900, 520))
    heights = [pixels_of(plot, color)[1] for color in COLORS[:3]]
    assert plot.size == (900, 520)
    assert heights[1] - heights[0] == pytest.approx(2 * (heights[2] - heights[1]), abs=3)


def test_loss_plot_spans_the_values_of_early_steps():
    plot = loss_plot({"a": [1e5, 1e3, 1.0] + [1e-4] * 17})
    column = np.abs(np.asarray(plot).astype(int) - ImageColor.getrgb(COLORS[0])).max(axis=2) < 12
    rows = np.nonzero(column[:, 87:500].any(axis=1))[0]
    assert rows.min() < 60 and rows.max() > 440


@pytest.mark.parametrize("gap", [math.nan, math.inf, 0.0, -1.0])
def test_loss_plot_leaves_gaps(gap):
    unbroken = pixels_of(loss_plot({"a": [1.0] * 20}), COLORS[0])[2]
    broken = pixels_of(loss_plot({"a": [1.0] * 5 + [gap] * 5 + [1.0] * 10}), COLORS[0])[2]
    assert 0.4 * unbroken < broken < 0.8 * unbroken


def test_loss_plot_marks_guided_steps():
    plot = loss_plot({"a": [1.0] * 20}, guided=[True] * 5 + [False] * 15)
    array = np.asarray(plot)
    middle = array[400]  # a row with neither curve nor legend
    shaded = np.nonzero((middle == ImageColor.getrgb(GUIDED)).all(axis=1))[0]
    width = 900 - 86 - 24
    assert shaded.min() == pytest.approx(87, abs=3)
    assert shaded.max() == pytest.approx(86 + width * 5 / 20, abs=3)


@pytest.mark.parametrize("values", [[], [math.nan] * 4, [1e-30], [1e38, 1e-38], [5.0]])
def test_loss_plot_of_unusual_curves(values):
    assert loss_plot({"a": values}, guided=[True] * len(values)).size == (900, 520)


def test_loss_plot_needs_a_curve():
    with pytest.raises(ValueError, match="curves is empty"):
        loss_plot({})


def test_checkerboard_keeps_known_pixels():
    image, mask = torch.rand(2, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    shown = checkerboard(image, mask)
    assert torch.equal(shown[..., 8:], image[..., 8:])
    assert len(shown[..., :8].unique()) == 2
