import math

import pytest
import torch

from gradpaint.method.settings import GuidanceSettings
from gradpaint.method.step import MOST, RATE, displacement, normalize, state_scale, step_size


@pytest.mark.parametrize(
    "parametrization, sigma, expected",
    [
        ("unit", 14.0, 1.0),
        ("ve", 0.0, 1.0),
        ("ve", 2.0, math.sqrt(5)),
        ("flow", 0.0, 1.0),
        ("flow", 1.0, 1.0),
        ("flow", 0.25, math.sqrt(0.75**2 + 0.25**2)),
    ],
)
def test_state_scale(parametrization, sigma, expected):
    assert float(state_scale(sigma, parametrization)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "parametrization, to_state",
    [("ve", lambda x, ab: x / ab**0.5), ("flow", lambda x, ab: x / (ab**0.5 + (1 - ab) ** 0.5))],
)
def test_one_alpha_means_the_same_in_every_parametrization(parametrization, to_state):
    # The unit-variance state x, moved by alpha*g_hat, and then expressed in the other units, moves by alpha*s*g_hat.
    alpha_bar = torch.tensor(0.3, dtype=torch.float64)
    ratio = ((1 - alpha_bar) / alpha_bar) ** 0.5
    sigma = ratio if parametrization == "ve" else ratio / (1 + ratio)
    x, g_hat = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    moved = to_state(x - 0.1 * g_hat, alpha_bar) - to_state(x, alpha_bar)
    assert torch.allclose(moved, -0.1 * state_scale(sigma, parametrization) * g_hat)


def test_bad_parametrization():
    with pytest.raises(ValueError, match="parametrization is 'vp'.*unit, ve, flow"):
        state_scale(1.0, "vp")


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("normalization", ["rms", "l2"])
def test_normalize_has_the_stated_norm_whatever_the_scale(normalization, factor):
    grad = torch.randn(3, 4, 5, 6) * factor
    g_hat, finite = normalize(grad, normalization)
    flat = g_hat.flatten(1)
    norm = flat.square().mean(1).sqrt() if normalization == "rms" else flat.norm(dim=1)
    assert torch.allclose(norm, torch.ones(3), atol=1e-5) and finite.all()
    assert torch.nn.functional.cosine_similarity(flat.double(), grad.flatten(1).double() / factor).min() > 1 - 1e-6


def test_normalize_never_looks_across_the_batch():
    grad = torch.randn(2, 3, 4, 4)
    other = grad.clone()
    other[1] *= 1e6
    assert torch.equal(normalize(grad)[0][0], normalize(other)[0][0])


def test_unusable_samples_are_left_out_and_reported():
    grad = torch.randn(4, 3, 2, 2)
    grad[1, 0, 0, 0] = float("nan")
    grad[2, 1, 1, 1] = float("inf")
    grad[3] = 0
    g_hat, finite = normalize(grad)
    assert finite.tolist() == [True, False, False, True]
    assert g_hat[1:].abs().max() == 0 and g_hat[0].abs().max() > 0


def test_displacement():
    grad = torch.tensor([[3.0, -4.0]])
    moved, _ = displacement(grad, 0.1, 5.0, "l2")
    assert moved[0].tolist() == pytest.approx([-0.3, 0.4])
    moved, _ = displacement(grad, 0.1, 5.0)
    assert moved.square().mean().sqrt().item() == pytest.approx(0.5)


def test_half_precision_keeps_its_dtype():
    moved, finite = displacement(torch.full((1, 3, 8, 8), 6e4, dtype=torch.float16), 0.5, 2.0)
    assert moved.dtype == torch.float16 and finite.all() and torch.allclose(moved, -torch.ones_like(moved))


def walk(settings, sigmas, flow=False):
    levels = [(1 - s, s) if flow else (1.0, s) for s in sigmas]
    return [step_size(settings, high, low) for high, low in zip(levels, levels[1:])]


def test_by_strength_a_run_is_pushed_as_far_however_it_is_cut_into_steps():
    settings = GuidanceSettings(strength=1.5)
    few = [math.tan(math.radians(angle)) for angle in range(85, 40, -5)]  # to 45 degrees, sigma 1
    many = sorted({*few, *(s * (1 + i / 7) for s in few for i in range(7) if s * (1 + i / 7) < few[0])}, reverse=True)
    whole = 1.5 * RATE * math.radians(40)
    assert len(many) > 30
    assert sum(walk(settings, few)) == pytest.approx(whole) == pytest.approx(sum(walk(settings, many)))


def test_late_steps_are_pushed_by_what_noise_is_left():
    first, last, end = walk(GuidanceSettings(), [1.1, 1.0, 0.01, 0.0])
    assert first == pytest.approx(RATE * (math.atan(1.1) - math.pi / 4))
    assert last == pytest.approx(MOST * 0.01) and end == 0  # the last step's state is the image


def test_in_runs_of_few_steps_no_step_goes_too_far():
    assert walk(GuidanceSettings(strength=0.5), [80.0, 2.0, 1.0]) == pytest.approx([0.5 * MOST] * 2)


def test_a_flow_models_step_is_that_of_the_same_noise_in_ve_form():
    flow = [1.0, 0.96, 0.9, 0.85, 0.5, 0.4, 0.36, 0.1]
    ve = [math.inf, *(sigma / (1 - sigma) for sigma in flow[1:])]
    settings = GuidanceSettings()
    assert walk(settings, flow, flow=True) == pytest.approx(walk(settings, ve))


def test_a_given_alpha_is_every_steps():
    assert walk(GuidanceSettings(strength=3.0, alpha=0.07), [80.0, 3.0, 1.0, 0.0]) == [0.07] * 3


def test_a_step_back_towards_noise_is_not_pushed_the_wrong_way():
    assert walk(GuidanceSettings(), [3.0, 1.0, 2.0, 0.0])[1] == 0
