"""LaMa's thin, medium and thick masks, and masks of a given coverage."""

from itertools import pairwise

import numpy as np
import pytest

from gradpaint.masks import irregular, make_mask
from gradpaint.masks.draw import Draws
from gradpaint.masks.irregular import PRESETS, coverage_mask, draw_boxes, irregular_mask, preset_for, stroke_segments

KINDS = ("thin", "medium", "thick")

# kind, size, strokes, max width, max length, box weight, margin, min, max, count, as published by Suvorov et al.
PUBLISHED = [
    ("thin", 256, (4, 50), 10, 40, 0, None, None, None),
    ("thin", 512, (4, 70), 20, 100, 0, None, None, None),
    ("medium", 256, (4, 5), 50, 100, 0.3, 0, (10, 50), (1, 5)),
    ("medium", 512, (4, 10), 100, 200, 0.3, 0, (30, 150), (1, 5)),
    ("thick", 256, (1, 5), 100, 200, 0.3, 10, (30, 150), (1, 3)),
    ("thick", 512, (1, 5), 250, 450, 0.3, 10, (30, 300), (1, 4)),
]


@pytest.mark.parametrize("kind, size, strokes, width, length, weight, margin, side, boxes", PUBLISHED)
def test_published_parameters(kind, size, strokes, width, length, weight, margin, side, boxes):
    preset = preset_for(kind, size, size)
    assert (preset.strokes, preset.max_width, preset.max_length) == (strokes, width, length)
    assert (preset.min_width, preset.min_length, preset.box_weight) == (5, 10, weight)
    if weight:
        assert (preset.box_margin, preset.box_side, preset.boxes) == (margin, side, boxes)


def test_other_sizes_scale_the_nearest_preset():
    quarter = preset_for("thick", 64, 64)
    assert (quarter.max_width, quarter.max_length, quarter.min_length, quarter.min_width) == (25, 50, 3, 1)
    assert (quarter.box_margin, quarter.box_side, quarter.boxes, quarter.strokes) == (3, (8, 38), (1, 3), (1, 5))
    double = preset_for("thick", 1024, 1024)
    assert (double.max_width, double.box_side, double.boxes) == (500, (60, 600), (1, 4))
    assert preset_for("thin", 128, 512) == PRESETS["thin"][256]  # same area as 256 x 256
    assert preset_for("medium", 8, 8).min_length == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(256, 256), (64, 64), (48, 80), (8, 8), (9, 31)])
def test_never_empty_never_over_half(kind, shape):
    coverage = np.array([irregular_mask(kind, *shape, seed).mean() for seed in range(25)])
    assert coverage.min() > 0
    assert coverage.max() <= 0.5
    assert len(np.unique(coverage)) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_mean_coverage(kind):
    """200 masks; the means were 0.24 - 0.28 at every size, standard error below 0.01."""
    coverage = np.array([irregular_mask(kind, 64, 64, seed).mean() for seed in range(200)])
    assert 0.19 < coverage.mean() < 0.32
    assert coverage.std() > 0.08


def test_strokes_follow_the_published_distribution():
    preset = PRESETS["thick"][512]
    draws = Draws(3)
    widths, lengths, counts, starts = [], [], [], []
    for _ in range(400):
        segments = list(stroke_segments(draws, (512, 512), preset, mirrored=False))
        counts.append(len(segments))
        starts.append(segments[0][0])
        for previous, following in pairwise(segments):
            assert previous[1] == following[0]
        for start, end, width in segments:
            widths.append(width)
            if 0 < min(end) and max(end) < 512:
                lengths.append(np.hypot(end[0] - start[0], end[1] - start[1]))
    assert set(counts) == {1, 2, 3, 4, 5}
    assert 5 <= min(widths) < 15 and 245 <= max(widths) <= 254
    assert 9 <= min(lengths) and max(lengths) < 460  # ends are truncated to integers
    assert np.array(starts).min() >= 0 and np.array(starts).max() <= 511
    assert np.allclose(np.mean(starts, axis=0), 255.5, atol=4 * 148 / 20)


def test_mirrored_strokes_go_the_other_way():
    preset = PRESETS["medium"][256]

    def horizontal(mirrored):
        segments = stroke_segments(Draws(11), (10**6, 10**6), preset, mirrored)
        return [end[0] - start[0] for start, end, _ in segments]

    plain, mirrored = horizontal(False), horizontal(True)
    assert max(plain) > 0 and min(plain) >= 0  # the sines of 0.01 .. 3.01 rad are all positive
    assert np.allclose(plain, [-step for step in mirrored], atol=1)


def test_boxes_keep_margin_and_sizes():
    preset = PRESETS["thick"][256]
    for seed in range(40):
        hole = draw_boxes(Draws(seed), (256, 256), preset)
        rows, columns = np.nonzero(hole)
        assert rows.min() >= 10 and rows.max() < 246 and columns.min() >= 10 and columns.max() < 246
        assert 30 <= rows.max() - rows.min() + 1 and 30 <= columns.max() - columns.min() + 1


def test_share_of_box_masks(monkeypatch):
    """Weights 1 and 0.3, renormalized: 3 of 13 masks are boxes; thin masks never are."""
    small = np.eye(16, dtype=bool)
    monkeypatch.setattr(irregular, "draw_strokes", lambda *_: small)
    monkeypatch.setattr(irregular, "draw_boxes", lambda *_: small[::-1])
    share = np.mean([irregular_mask("thick", 16, 16, seed)[-1, 0] for seed in range(2000)])
    assert abs(share - 3 / 13) < 4 * np.sqrt(3 / 13 * 10 / 13 / 2000)
    assert not any(irregular_mask("thin", 16, 16, seed)[-1, 0] for seed in range(100))


@pytest.mark.parametrize("coverage", [0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(64, 64), (33, 70), (256, 256)])
def test_coverage_is_exact(coverage, shape):
    for seed in range(3):
        hole = coverage_mask(*shape, seed, coverage=coverage)
        assert abs(int(hole.sum()) - coverage * hole.size) <= 0.5


def test_coverage_extremes_and_strokes():
    assert coverage_mask(8, 8, 0, coverage=1e-6).sum() == 1
    assert coverage_mask(8, 8, 0, coverage=1 - 1e-6).sum() == 63
    thin, thick = (make_mask("coverage", 64, 64, 1, coverage=0.25, strokes=kind) for kind in ("thin", "thick"))

    def border(mask):
        return (mask[..., 1:, :] != mask[..., :-1, :]).sum() + (mask[..., 1:] != mask[..., :-1]).sum()

    assert thin.sum() == thick.sum() == 1024
    assert border(thin) > 2 * border(thick)


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 75])
def test_bad_coverage(coverage):
    with pytest.raises(ValueError, match=f"coverage is {coverage}"):
        make_mask("coverage", 64, 64, coverage=coverage)


def test_bad_strokes_and_tiny_images():
    with pytest.raises(ValueError, match="strokes is 'fat'.*thin, medium, thick"):
        make_mask("coverage", 64, 64, strokes="fat")
    for kind in (*KINDS, "coverage"):
        with pytest.raises(ValueError, match="7x64.*8x8"):
            make_mask(kind, 7, 64)
