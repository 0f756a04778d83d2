"""The adaptive early stop: its normalised loss, when it ends guidance, and what a run makes of that."""

import math

import pytest
import torch

from gradpaint.method.adaptive_stop import FEWEST, AdaptiveStop
from gradpaint.method.gradient import wiener
from gradpaint.method.settings import GuidanceSettings, GuideSchedule
from gradpaint.sampling.inpaint import inpaint

ALWAYS = {"minimum": 0.0, "maximum": 1.0, "patience": 0.1, "tolerance": 0.05}


def schedule(**changes):
    return GuideSchedule(mode="adaptive", **{**ALWAYS, **changes})


@pytest.fixture
def known():
    """(y, mask): two images whose known parts have the variances 4 and 0.25."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(2, 3, 64, 64, generator=generator) * torch.tensor([2.0, 0.5]).view(2, 1, 1, 1) + 0.3
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    y[..., :32] = 100  # not known: must not count
    return y, mask


def stopper(known, steps=20, lag=0, **changes):
    return AdaptiveStop(schedule(**changes), *known, steps, lag)


def feed(stop, curves, b=1.0):
    """Normalised losses, one list per sample, told as losses; returns after which steps `over` was first seen."""
    for i, values in enumerate(zip(*curves)):
        n = torch.tensor(values)
        stop.update(i, n * stop.variance * b * b / (stop.variance + b * b), 1.0, b)
        if stop.over():
            return i + 1
    return None


def test_variance_is_the_known_parts(known):
    assert stopper(known).variance.tolist() == pytest.approx([4, 0.25], rel=0.05)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_normalised_loss_of_the_best_denoiser_of_unrelated_pixels_is_one(known, sigma):
    y, mask = known
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    spread = torch.tensor([4.0, 0.25]).view(2, 1, 1, 1)
    x0_hat = 0.3 + (y + sigma * noise - 0.3) * spread / (spread + sigma**2)
    mse = ((x0_hat - y) ** 2)[..., 32:].flatten(1).mean(1)
    stop = stopper(known)
    stop.update(0, mse, 1.0, sigma)
    assert stop.best.tolist() == pytest.approx([1, 1], rel=0.06)


def test_only_the_ratio_of_noise_to_image_counts(known):
    losses = torch.tensor([0.3, 0.1])
    ve, flow, last = stopper(known), stopper(known), stopper(known)
    ve.update(0, losses, 1.0, 3.0)
    flow.update(0, losses, 0.25, 0.75)
    assert torch.allclose(ve.best, flow.best)
    last.update(0, losses, 0.0, 1.0)  # pure noise, where the best estimate is the mean
    assert torch.allclose(last.best, losses / last.variance)


def test_a_sample_is_done_when_its_loss_has_stopped_falling(known):
    falling = [0.8**i for i in range(20)]
    turning = [0.8**i for i in range(8)] + [0.8**7 * 1.1] * 12
    stop = stopper(known, patience=0.15)
    assert feed(stop, [falling, turning]) is None
    assert stop.done_after.tolist() == [0, 11]  # lowest at the 8th step, 3 more without a fall
    displacements = torch.ones(2, 3, 4, 4)
    assert torch.equal(stop.limited(displacements, 10), displacements)
    limited = stop.limited(displacements, 11)
    assert torch.equal(limited[0], displacements[0]) and not limited[1].any()
    assert feed(stopper(known, patience=0.15), [turning, turning]) == 11


def test_single_noisy_steps_neither_stop_nor_prolong(known):
    up_and_down = [0.8**i * (1.5 if i % 2 else 1.0) for i in range(20)]
    assert feed(stopper(known), [up_and_down] * 2) is None
    slow = [0.4 * 0.99**i for i in range(20)]  # 2 % in two steps: less than the tolerance
    assert feed(stopper(known), [slow] * 2) == 3
    assert feed(stopper(known, tolerance=0.0), [slow] * 2) is None


def test_a_plateau_before_anything_can_be_seen_is_no_end(known):
    assert feed(stopper(known), [[1.0] * 10 + [0.6**i for i in range(10)]] * 2) is None
    assert feed(stopper(known), [[1.0] * 10 + [0.4] * 10] * 2) == 13


def test_shares_of_the_run(known):
    flat = [[0.3] * 100] * 2
    assert feed(stopper(known, steps=100), flat) == 11
    assert feed(stopper(known, steps=100, minimum=0.4), flat) == 40
    assert feed(stopper(known, steps=4), flat) == FEWEST + 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_no_fall(known, bad):
    assert feed(stopper(known), [[0.3] + [bad] * 9] * 2) == 3
    assert feed(stopper(known), [[bad] * 3 + [0.4, 0.3, 0.2, 0.1]] * 2) is None


def test_lag_shows_the_decision_later_and_changes_nothing_else(known):
    flat = [[0.3] * 9] * 2
    stops = [stopper(known, lag=lag) for lag in (0, 1)]
    assert [feed(stop, flat) for stop in stops] == [3, 4]
    assert torch.equal(stops[0].done_after, stops[1].done_after)
    reports = [stop.report([True] * 20, done) for stop, done in zip(stops, (3, 4))]
    assert [(r.step, r.reason, r.samples) for r in reports] == [(3, "loss", [3, 3])] * 2
    assert [r.saved for r in reports] == [17, 16]
    assert "after step 3" in str(reports[0]) and "17 backward passes saved" in str(reports[0])


def test_report_where_a_sample_went_on_to_the_end(known):
    stop = stopper(known)
    feed(stop, [[0.3] * 10, [0.5**i for i in range(10)]])
    report = stop.report([True] * 10 + [False] * 10, 10)
    assert (report.step, report.reason, report.saved, report.samples) == (10, "schedule", 0, [3, 10])
    assert "10 steps, as scheduled" in str(report)


def test_flat_known_part_and_none_at_all():
    y = torch.zeros(1, 3, 8, 8)
    for mask in (torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)):
        stop = AdaptiveStop(schedule(), y, mask, 10)
        for i in range(4):
            stop.update(i, torch.zeros(1), 1.0, 1.0)
        assert stop.over() and stop.best.isfinite().all()


def test_a_decision_at_the_last_planned_step_stops_nothing(known):
    stop = stopper(known)
    assert feed(stop, [[0.3] * 3] * 2) == 3
    assert (stop.report([True] * 3 + [False] * 5, 3).reason, stop.report([True] * 4, 3).reason) == ("schedule", "loss")


# ---- in a run


SIGMAS = torch.linspace(3, -3, 20).exp().tolist() + [0.0]


def denoise(x, sigma):
    out = wiener(x, 1.0, sigma)  # knows that images are smooth
    graphs.append(out.requires_grad)
    return out


graphs = []


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(1, 3, 3, 3, generator=generator), (16, 16), mode="bilinear")
    y = torch.cat([smooth, torch.randn(1, 3, 16, 16, generator=generator)]).clamp(-1, 1)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:11, 5:12] = 1
    graphs.clear()
    return y, mask, torch.randn(y.shape, generator=generator)


def run(y, mask, noise, **changes):
    settings = GuidanceSettings(alpha=0.08, schedule=GuideSchedule(**changes))
    return inpaint(denoise, y, mask, sigmas=SIGMAS, noise=noise, settings=settings, progress=False)


def test_run_stops_taking_gradients(case):
    y, mask, noise = case
    result = run(y, mask, noise, mode="adaptive", **ALWAYS)
    count = max(result.stop.samples)
    assert 3 <= count < 18 and result.stop.reason == "loss" and result.stop.step == count
    assert graphs == [True] * count + [False] * (20 - count) == [r.guided for r in result.record]
    assert result.backwards == count and result.stop.saved == 20 - count


def test_no_image_depends_on_its_neighbours(case):
    y, mask, noise = case
    together = run(y, mask, noise, mode="adaptive", **ALWAYS)
    assert len(set(together.stop.samples)) == 2, together.stop
    for i in range(2):
        alone = run(y[i : i + 1], mask, noise[i : i + 1], mode="adaptive", **ALWAYS)
        fixed = run(y[i : i + 1], mask, noise[i : i + 1], mode="steps", steps=alone.stop.step)
        assert alone.stop.samples == [together.stop.samples[i]]
        assert torch.allclose(alone.image, together.image[i : i + 1], atol=1e-5)
        assert torch.equal(alone.image, fixed.image)


def test_maximum_and_fixed_schedules_are_reported_as_such(case):
    limited = run(*case, mode="adaptive", **{**ALWAYS, "maximum": 0.1})
    assert (limited.stop.reason, limited.stop.step, limited.stop.saved) == ("schedule", 2, 0)
    fixed = run(*case, mode="fraction", fraction=0.25)
    assert (fixed.stop.reason, fixed.stop.step, fixed.backwards) == ("schedule", 5, 5)


def test_kept_steps_end_too(case):
    result = run(*case, mode="adaptive", every=2, between="keep", **ALWAYS)
    end = result.stop.step
    assert end < 18 and not any(r.guided or r.reused for r in result.record[end:])
    assert any(r.reused for r in result.record[:end])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"minimum": 0.6, "maximum": 0.5}, "minimum is 0.6, but must be at most maximum, which is 0.5"),
        ({"patience": -0.1}, "patience is -0.1"),
        ({"tolerance": 1.0}, "tolerance is 1.0"),
        ({"maximum": 1.5}, "maximum is 1.5"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        schedule(**changes)
