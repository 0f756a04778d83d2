"""Pictures of a run: positions, and the gradients that they show."""

import math

import numpy as np
import pytest
import torch

from gradpaint.drawing import run_pictures as pictures
from gradpaint.drawing.plots import COLORS, nice_ticks, tradeoff_plot
from gradpaint.method.gradient import loss_gradient, wiener
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from gradpaint.method.terms import loss_terms
from gradpaint.sampling.inpaint import inpaint

SIGMAS = [8.0, 4.0, 2.0, 1.0, 0.5, 0.0]


def denoise(x, sigma):
    return wiener(x, 1.0, sigma)


@pytest.fixture(scope="module")
def case():
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, 3, 16, 16, generator=generator) * 1.6 - 0.8
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:11, 5:12] = 1
    return y, mask


def run(case, lambda_al=0.5, **keep):
    settings = GuidanceSettings(alignment=AlignmentSettings(lambda_al=lambda_al), schedule=GuideSchedule(fraction=0.6))
    return inpaint(denoise, *case, sigmas=SIGMAS, settings=settings, progress=False, seed=1, **keep)


# ---- what a run keeps


def test_nothing_is_kept_unless_asked_for(case):
    plain = run(case)
    assert all(step.x0_hat is None and not step.maps for step in plain.record) and plain.backwards == 3
    kept = run(case, keep_x0=[0, 4], keep_gradients=[1, 4])
    assert [step.x0_hat is not None for step in kept.record] == [True, False, False, False, True]
    assert [bool(step.maps) for step in kept.record] == [False, True, False, False, False]  # step 4 is not guided
    assert torch.equal(kept.image, plain.image) and kept.backwards == 4
    everything = run(case, keep_x0=True, keep_gradients=True)
    assert sum(bool(step.maps) for step in everything.record) == 3 and everything.backwards == 6
    assert all(step.x0_hat.shape == (2, 3, 16, 16) for step in everything.record)


def terms(lambda_al):
    return loss_terms(GuidanceSettings(alignment=AlignmentSettings(lambda_al=lambda_al)))


def test_maps_are_the_terms_own_gradients(case):
    y, mask = case
    y = y * (1 - mask)
    first = run(case, keep_gradients=[0]).record[0].maps
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    leaf = (noise * (1 + SIGMAS[0] ** 2) ** 0.5 + y).requires_grad_()
    x0_hat = denoise(leaf, SIGMAS[0])
    mse = (((x0_hat - y) ** 2) * (1 - mask)).sum((1, 2, 3)) / (1 - mask).sum() / 3
    (grad,) = torch.autograd.grad(mse.sum(), leaf, retain_graph=True)
    assert torch.allclose(first["mse"], grad.norm(dim=1), rtol=1e-3, atol=1e-7)
    off, on = (
        loss_gradient(leaf, x0_hat, y, mask, terms(weight), SIGMAS[0], retain_graph=True) for weight in (0.0, 0.5)
    )
    true = [
        found.gradient * (found.rms / found.gradient.flatten(1).square().mean(1).sqrt()).view(-1, 1, 1, 1)
        for found in (off, on)
    ]
    assert torch.allclose(first["alignment"], (true[1] - true[0]).norm(dim=1), rtol=1e-2, atol=1e-6)
    assert first["alignment"].shape == (2, 16, 16) and first["alignment"].max() > 1e-5


def test_without_alignment_there_is_no_map_and_no_second_pass(case):
    result = run(case, lambda_al=0.0, keep_gradients=True)
    assert result.backwards == 3 and all(list(step.maps) == ["mse"] for step in result.record[:3])


# ---- pictures


def flat(*values):
    return torch.stack([torch.full((3, 8, 8), float(value)) for value in values])


def cells(picture, rows, columns, size=16, gap=8):
    """Return the middle colors of the cells in a sheet's lower right corner."""
    array = np.asarray(picture)
    middle = [
        [
            array[
                array.shape[0] - gap - (rows - r) * (size + gap) + gap + size // 2,
                array.shape[1] - (columns - c) * (size + gap) + size // 2,
            ]
            for c in range(columns)
        ]
        for r in range(rows)
    ]
    return np.array(middle)


def test_timeline_has_a_column_a_step_and_a_row_an_image():
    estimates = {0: flat(-1, 1), 3: flat(0, -0.5)}
    shown = cells(pictures.timeline(estimates, sigmas={0: 5.0, 3: 0.1}, cell=16), 2, 2)
    assert shown[..., 0].tolist() == [[0, 128], [255, 64]]


def test_timeline_of_two_runs_puts_them_below_each_other():
    first, second = {0: flat(-1, 1)}, {0: flat(0, -0.5)}
    assert cells(pictures.timeline(first, second, cell=16), 4, 1)[..., 0, 0].tolist() == [0, 128, 255, 64]
    with pytest.raises(ValueError, match=r"other has steps \[1\]"):
        pictures.timeline(first, {1: flat(0, 0)})


def test_timeline_shows_middle_frames_of_videos_and_survives_nan():
    video = torch.stack([flat(-1, 1)[0], flat(0)[0], flat(1)[0]], 1)[None]
    assert cells(pictures.timeline({0: video}, cell=16), 1, 1)[0, 0, 0] == 128
    assert pictures.timeline({0: flat(math.nan)}, cell=16).size[0] > 0
    with pytest.raises(ValueError, match=r"shape \(1, 4, 8, 8\)"):
        pictures.timeline({0: torch.zeros(1, 4, 8, 8)})


@pytest.mark.parametrize("draw", [lambda: pictures.timeline({}), lambda: pictures.gradient_maps({}, torch.ones(1))])
def test_nothing_kept_is_an_error(draw):
    with pytest.raises(ValueError, match="is empty"):
        draw()


def test_gradient_maps_are_bright_where_the_gradient_is_large():
    values = torch.zeros(1, 8, 8)
    values[:, :, 4:] = 2e-5
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :2] = 1
    array = np.asarray(pictures.gradient_maps({1: {"mse": values}}, mask, cell=80)).astype(int)
    sheet = array[-88:-8, -88:-8]
    assert (sheet[40, 70] > 180).all() and (sheet[40, 30] < 10).all()
    lines = np.nonzero((sheet[40] == pictures.OUTLINE).all(-1))[0]
    assert len(lines) == 1 and 18 <= lines[0] <= 20  # the hole's edge, after two enlarged pixels
    both = pictures.gradient_maps({1: {"mse": values, "alignment": values}}, mask, cell=80)
    assert both.height == np.asarray(array).shape[0] + 88


def test_gradient_maps_of_zero_and_nonfinite_values():
    for values in (torch.zeros(2, 8, 8), torch.full((2, 8, 8), math.nan), torch.full((2, 3, 8, 8), 1e-30)):
        assert pictures.gradient_maps({0: {"mse": values}}, torch.ones(2, 1, 8, 8), cell=16).height > 32


def test_spread_takes_the_ends():
    assert pictures.spread(range(30), 4) == [0, 10, 19, 29]
    assert pictures.spread([3, 5], 4) == [3, 5] and pictures.spread([], 4) == [] and pictures.spread([1, 2], 1) == [2]
    with pytest.raises(ValueError, match="count is 0"):
        pictures.spread([1], 0)


def test_loss_curves_draw_the_terms_they_are_given():
    mse = [1e5, 1.0, math.nan]
    both = pictures.loss_curves({"a": mse, "b": [0.1, 0.2, math.nan]}, guided=[True, True, False])
    one = pictures.loss_curves({"a": mse}, sigmas=[10.0, 1.0, 0.1])
    color = np.array([int(COLORS[1][i : i + 2], 16) for i in (1, 3, 5)])
    has = [bool((np.abs(np.asarray(plot).astype(int) - color).max(-1) < 12).any()) for plot in (both, one)]
    assert has == [True, False] and both.size == (900, 520)


@pytest.mark.parametrize("loss, title", [("edge-match", "edge match"), ("alignment", "alignment loss (eq. 6)")])
def test_curves_name_the_loss_that_was_used(case, loss, title):
    alignment = AlignmentSettings(lambda_al=0.5, loss=loss, fraction=0.4)
    settings = GuidanceSettings(alignment=alignment, schedule=GuideSchedule(fraction=0.6))
    record = inpaint(denoise, *case, sigmas=SIGMAS, settings=settings, progress=False).record
    assert [list(step.titles) for step in record] == [["mse", "alignment"]] * 2 + [["mse"], [], []]
    curves = pictures.curves_of(record)
    assert list(curves) == ["total (eq. 8)", "masked MSE (eq. 5)", title]
    assert curves[title][0] == pytest.approx(float(record[0].losses["alignment"].mean()))
    assert [math.isnan(value) for value in curves[title]] == [False] * 3 + [True] * 2
    assert list(pictures.curves_of(run(case, lambda_al=0.0).record)) == ["masked MSE (eq. 5)"]


def test_pictures_of_a_run(case):
    drawn = pictures.pictures_of(run(case, keep_x0=[0, 4], keep_gradients=[1]).record, case[1])
    assert list(drawn) == ["timeline", "gradients", "losses"]
    assert list(pictures.pictures_of(run(case).record, case[1])) == ["losses"]
    image = pictures.as_image_batch(drawn["timeline"])
    assert image.shape == (1, drawn["timeline"].height, drawn["timeline"].width, 3)
    assert image.dtype == torch.float32 and 0 <= image.min() and image.max() == 1


# ---- quality against cost


def near(plot, color):
    target = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return np.argwhere(np.abs(np.asarray(plot).astype(int) - target).max(-1)[:, :600] < 12)


def test_tradeoff_points_and_error_bars_are_in_their_places():
    bars = near(tradeoff_plot({"a": [(0.0, 2.0, 0.5), (1.0, 2.0, 0.1), (2.0, 1.0, None)]}), COLORS[0])
    first, second = (bars[np.abs(bars[:, 1] - x) < 4] for x in (129, 481))
    assert 4 * np.ptp(second[:, 0]) < np.ptp(first[:, 0]) < 7 * np.ptp(second[:, 0])


def test_tradeoff_leaves_out_nonfinite_points_and_needs_one():
    assert tradeoff_plot({"a": [(0, 1), (math.nan, 1)], "b": [(1, 2, math.nan, "note")]}).size == (900, 520)
    with pytest.raises(ValueError, match="at least one point"):
        tradeoff_plot({"a": [(math.nan, 1)]})
    with pytest.raises(ValueError, match=r"points has \(1,\)"):
        tradeoff_plot({"a": [(1,)]})


@pytest.mark.parametrize("low, high", [(0, 1), (0.12, 0.19), (-3, 250), (1e-4, 1.3e-4)])
def test_nice_ticks(low, high):
    ticks = nice_ticks(low, high)
    assert 3 <= len(ticks) <= 9 and all(low - 1e-9 <= value <= high + 1e-9 for value, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)
