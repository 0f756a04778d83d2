"""Sampling with the learned variance, compared with openai/guided-diffusion, which computed golden_sampling.json.

Its `p_sample` and `space_timesteps` ran with the same random weights and noise; see "note" in that file.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import LABELS, NETWORKS, formula_weights, shapes_of, uniform
from torch import nn

from gradpaint.evaluation.conditioning import Labeled
from gradpaint.guided_diffusion import (
    GuidedDiffusionDenoiser,
    ModelConfig,
    UNet,
    learned_variance,
    respaced_sigmas,
    space_timesteps,
    trained_sigmas,
)
from gradpaint.sampling import run as sampling_run
from gradpaint.sampling.inpaint import inpaint
from gradpaint.sampling.sigmas import run_sigmas, spaced_sigmas

GOLDEN = json.loads((Path(__file__).parent / "golden_sampling.json").read_text())
RUNS = {f"{run['network']} {run['noise_schedule']} {run['respacing']}": run for run in GOLDEN["runs"]}
SIZE = 16


class Formula(nn.Module):
    """Replaces a network in float64, so that both samplers can be compared to many digits."""

    dtype = torch.float64

    def forward(self, x, t, y=None):
        t = t.to(x)[:, None, None, None]
        return torch.cat([torch.sin(2 * x + t / 100), torch.cos(3 * x - t / 70)], 1)


def make(name, **process):
    config = ModelConfig(NETWORKS["fractional" if name == "formula" else name][0], image_size=SIZE, **process)
    if name == "formula":
        return GuidedDiffusionDenoiser(Formula(), config)
    unet = UNet(config.unet)
    unet.load_state_dict(formula_weights(shapes_of(unet)))
    return GuidedDiffusionDenoiser(unet, config)


def noise(index, dtype=torch.float32):
    """Step noise of the golden runs, about standard normal; index 0 is the first state."""
    return torch.from_numpy(np.sqrt(3.0) * uniform(f"noise {index}", (2, 3, SIZE, SIZE))).to(dtype)


def pick(tensor, count=16):
    return tensor.flatten()[torch.linspace(0, tensor.numel() - 1, count).long()]


def compare(actual, golden, **tolerance):
    torch.testing.assert_close(pick(actual), torch.tensor(golden, dtype=actual.dtype), **tolerance)


# ---- the original's sampler


@pytest.mark.parametrize("name", RUNS)
def test_equals_the_originals_p_sample(name):
    """Every golden step of a run from start to end, in the original's unit-variance states."""
    run = RUNS[name]
    exact = run["network"] == "formula"
    denoiser = make(run["network"], noise_schedule=run["noise_schedule"], sigma_max=1e9)
    label = torch.tensor(LABELS) if denoiser.config.unet.num_classes else None
    dtype = torch.float64 if exact else torch.float32
    atol, rtol = (1e-10, 1e-9) if exact else (1e-5, 1e-4)
    levels = respaced_sigmas(denoiser.config, run["respacing"]).tolist()
    golden = {step["step"]: step for step in run["steps"]}
    x = noise(0, dtype) * math.sqrt(1 + levels[0] ** 2)
    for i, (sigma, sigma_next) in enumerate(zip(levels, levels[1:])):
        x0_hat, v = denoiser.evaluate(x, sigma, label)
        x0_hat = x0_hat.clamp(-1, 1)
        variance = learned_variance(v, sigma, sigma_next, levels[i - 1])
        x = x0_hat + (x - x0_hat) * (sigma_next / sigma) ** 2
        if sigma_next > 0:
            x = x + variance.sqrt() * noise(i + 1, dtype)
        if i in golden:
            scale = 1 + sigma_next**2
            compare(x / math.sqrt(scale), golden[i]["sample"], atol=atol, rtol=0)
            compare(variance / scale, golden[i]["variance"], atol=0, rtol=rtol)
            compare(x0_hat, golden[i]["pred_xstart"], atol=atol * (1 + sigma), rtol=0)  # x - sigma * eps is rounded
    assert i == len(levels) - 2 == max(golden) and len(golden) == 9


@pytest.mark.parametrize("name", RUNS)
def test_the_librarys_ddpm_is_the_originals(name, monkeypatch):
    """The sampling loop itself, with nothing known: the same end as the original's, by default."""
    run = RUNS[name]
    exact = run["network"] == "formula"
    denoiser = make(run["network"], noise_schedule=run["noise_schedule"], sigma_max=1e9)
    if denoiser.config.unet.num_classes:
        denoiser = Labeled(denoiser, LABELS)
    dtype = torch.float64 if exact else torch.float32
    y, mask = torch.zeros(2, 3, SIZE, SIZE, dtype=dtype), torch.ones(1, 1, SIZE, SIZE, dtype=dtype)
    original = sampling_run.prepare

    def sample(**options):
        drawn = iter(range(1, 10_000))
        monkeypatch.setattr(
            sampling_run, "prepare", lambda *a: original(*a)._replace(draw=lambda: noise(next(drawn), dtype))
        )
        levels = respaced_sigmas(denoiser.config, run["respacing"])
        return inpaint(
            denoiser,
            y,
            mask,
            sigmas=levels,
            noise=noise(0, dtype),
            method="combine_image",
            sampler="ddpm",
            progress=False,
            **options,
        ).image

    golden = run["steps"][-1]["sample"]
    compare(sample(), golden, atol=1e-10 if exact else 1e-5, rtol=0)
    fixed = pick(sample(learned_variance=False))
    assert (fixed - torch.tensor(golden, dtype=fixed.dtype)).abs().max() > 1e-3


def test_runs_of_such_models_are_respaced_as_in_the_original():
    name = next(run["network"] for run in RUNS.values())
    denoiser = make(name)
    assert denoiser.learns_variance
    assert torch.equal(run_sigmas(denoiser, 20), respaced_sigmas(denoiser.config, "20"))
    assert torch.equal(run_sigmas(denoiser, 20, "ddim"), spaced_sigmas(denoiser.sigmas, 20))


def test_golden_variance_lies_between_both_bounds_and_is_not_one_of_them():
    """The comparison above would fail with either fixed variance."""
    for run in RUNS.values():
        config = make(run["network"], noise_schedule=run["noise_schedule"], sigma_max=1e9).config
        levels = respaced_sigmas(config, run["respacing"]).tolist()
        for step in run["steps"][:-1]:
            sigma, sigma_next = levels[step["step"] : step["step"] + 2]
            low, high = (
                learned_variance(torch.tensor(v), sigma, sigma_next).item() / (1 + sigma_next**2) for v in (-1.0, 1.0)
            )
            golden = torch.tensor(step["variance"])
            spread = math.log(high / low)
            if spread > 0.02:  # at high noise levels both are nearly the same
                assert (golden / low).log().abs().max() > 0.2 * spread
                assert (golden / high).log().abs().max() > 0.2 * spread


@pytest.mark.parametrize("case", GOLDEN["timesteps"])
def test_timesteps_are_the_originals(case):
    total, respacing = case.split(" ", 1)
    timesteps, golden = space_timesteps(int(total), respacing), GOLDEN["timesteps"][case]
    if isinstance(golden, list):
        assert timesteps == golden
    else:
        assert (len(timesteps), sum(timesteps)) == (golden["count"], golden["sum"])
        assert sum(t * t for t in timesteps) == golden["squares"] and timesteps[::37] == golden["some"]


# ---- the formula


def test_bounds_are_the_two_fixed_variances():
    """v = -1 gives the variance of q(x_next | x, x0), which is the DDPM step's; v = 1 gives beta in VE units."""
    sigma, sigma_next = 3.0, 2.0
    low, high = learned_variance(torch.tensor([-1.0, 1.0], dtype=torch.float64), sigma, sigma_next).tolist()
    assert low == pytest.approx(sigma_next**2 * (1 - (sigma_next / sigma) ** 2), rel=1e-12)
    beta = 1 - (1 + sigma_next**2) / (1 + sigma**2)
    assert high == pytest.approx(beta * (1 + sigma_next**2), rel=1e-12)
    middle = learned_variance(torch.zeros(1, dtype=torch.float64), sigma, sigma_next).item()
    assert middle == pytest.approx(math.sqrt(low * high), rel=1e-12)


def test_step_to_zero_takes_the_lower_bound_of_the_step_before():
    v = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    low, high = learned_variance(v, 0.5, 0.0, 0.8).tolist()
    before = learned_variance(v[:1], 0.8, 0.5).item() / (
        1 + 0.5**2
    )  # in unit-variance states, as the result of a step to 0
    assert low == pytest.approx(before, rel=1e-12) and high == pytest.approx(0.5**2 / (1 + 0.5**2), rel=1e-12)


def test_half_precision_values_give_float32():
    v = torch.linspace(-1, 1, 5)
    half = learned_variance(v.half(), 150.0, 120.0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, learned_variance(v, 150.0, 120.0))


@pytest.mark.parametrize(
    "levels, message",
    [
        ((1.0, 1.0), "sigma_next is 1.0.*below sigma, 1.0"),
        ((1.0, -0.5), "sigma_next is -0.5"),
        ((0.0, 0.0), "sigma_next is 0.0"),
        ((1.0, 0.0), "sigma_previous is None"),
        ((1.0, 0.0, 0.9), "sigma_previous is 0.9.*above sigma, 1.0"),
    ],
)
def test_wrong_noise_levels(levels, message):
    with pytest.raises(ValueError, match=message):
        learned_variance(torch.zeros(1), *levels)


# ---- the denoiser and its noise levels


def test_evaluate_is_the_plain_call_plus_the_networks_variance():
    denoiser, x = make("fractional"), noise(0)
    x0_hat, v = denoiser.evaluate(x, 2.0)
    assert torch.equal(x0_hat, denoiser(x, 2.0))
    unit = x / 5**0.5
    out = denoiser.unet(unit, denoiser.timestep(torch.tensor(2.0)).expand(2))
    torch.testing.assert_close(v, out[:, 3:])
    assert v.shape == x.shape and not torch.equal(v, out[:, :3])


def test_networks_without_learned_variance_give_none():
    denoiser, x = make("conv_resample"), noise(0)
    x0_hat, v = denoiser.evaluate(x, 2.0)
    assert v is None and torch.equal(x0_hat, denoiser(x, 2.0))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("respacing", ["100", "25,10,5", "ddim20"])
def test_respaced_levels_are_the_trained_ones_of_these_timesteps(schedule, respacing):
    denoiser = make("fractional", noise_schedule=schedule)
    levels, timesteps = respaced_sigmas(denoiser.config, respacing), space_timesteps(1000, respacing)
    table = trained_sigmas(denoiser.config)
    visited = [t for t in timesteps if t < len(table)][::-1]
    assert levels.dtype == torch.float64 and levels[-1] == 0 and (levels.diff() < 0).all()
    assert torch.equal(levels[:-1], table[visited])
    assert (
        denoiser.timestep(levels[:-1].float()).tolist() == visited
    )  # float32 is precise enough to select the timestep
    assert (len(visited) == len(timesteps)) == (schedule == "linear" or respacing == "ddim20")


def test_inpaint_takes_the_levels():
    denoiser = make("fractional")
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    levels = respaced_sigmas(denoiser.config, "4")
    result = inpaint(denoiser, torch.zeros(1, 3, 16, 16), mask, sigmas=levels, progress=False)
    assert [step.sigma for step in result.record] == levels[:-1].tolist() and result.image.isfinite().all()


@pytest.mark.parametrize(
    "respacing, message",
    [
        ("", "respacing is ''"),
        ("0", "respacing is '0'"),
        ("10,-1", "respacing is '10,-1'"),
        ("ten", "respacing is 'ten'"),
        ("ddim10,10", "respacing is 'ddim10,10'"),
        ("1001", "asks for 1001 of 1000 timesteps"),
        ("10,501", "asks for 501 of 500 timesteps"),
        ("ddim300", "'ddim300' is impossible"),
    ],
)
def test_wrong_respacing(respacing, message):
    with pytest.raises(ValueError, match=message):
        space_timesteps(1000, respacing)
