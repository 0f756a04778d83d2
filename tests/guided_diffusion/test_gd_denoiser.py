import dataclasses

import pytest
import torch
from networks import NETWORKS, formula_input, formula_weights, shapes_of

from gradpaint.guided_diffusion import GuidedDiffusionDenoiser, ModelConfig, UNet, noise_schedule, trained_sigmas


def make(name, label=None, **process):
    config = ModelConfig(NETWORKS[name][0], **({"image_size": 16} | process))
    unet = UNet(config.unet)
    unet.load_state_dict(formula_weights(shapes_of(unet)))
    return GuidedDiffusionDenoiser(unet, config, label)


# ---- noise schedules


def test_linear_schedule_values():
    betas = noise_schedule("linear", 1000)
    assert betas.dtype == torch.float64 and betas.shape == (1000,)
    assert betas[0].item() == pytest.approx(1e-4) and betas[-1].item() == pytest.approx(0.02)
    assert noise_schedule("linear", 500)[-1].item() == pytest.approx(0.04)
    # Ho et al.: the share of the image that remains at the end
    assert torch.cumprod(1 - betas, 0)[-1].item() == pytest.approx(4.0358e-5, rel=1e-3)


def test_cosine_schedule_is_eq_17():
    betas = noise_schedule("cosine", 1000)
    t = torch.tensor([250.0, 500.0, 900.0], dtype=torch.float64)
    f = torch.cos((torch.cat([t.new_zeros(1), t]) / 1000 + 0.008) / 1.008 * torch.pi / 2) ** 2
    torch.testing.assert_close(torch.cumprod(1 - betas, 0)[t.long() - 1], f[1:] / f[0])
    assert betas.max().item() == 0.999


@pytest.mark.parametrize("schedule, steps", [("linear", 1000), ("linear", 200), ("cosine", 1000), ("cosine", 300)])
def test_sigma_table_ascends(schedule, steps):
    config = ModelConfig(NETWORKS["fractional"][0], schedule, steps)
    sigmas = trained_sigmas(config)
    assert (sigmas.diff() > 0).all() and sigmas[-1] <= config.sigma_max
    if (schedule, steps) == ("linear", 1000):
        assert len(sigmas) == steps
    else:
        assert steps - 10 < len(sigmas) < steps
    everything = trained_sigmas(dataclasses.replace(config, sigma_max=1e6))
    assert len(everything) == steps and torch.equal(everything[: len(sigmas)], sigmas)


def test_unknown_schedule():
    with pytest.raises(ValueError, match="noise_schedule must be one of"):
        noise_schedule("sqrt")
    with pytest.raises(ValueError, match="more than 20"):
        noise_schedule("linear", 20)
    with pytest.raises(ValueError, match="at least 2"):
        noise_schedule("cosine", 1)


# ---- the denoiser


def test_denoises_by_the_formula_at_trained_levels():
    denoiser = make("fractional")
    x = formula_input(16)
    for t in (0, 417, 999):
        sigma = denoiser.sigmas[t].float()
        eps = denoiser.unet(x / (1 + sigma**2) ** 0.5, torch.full((2,), t))[:, :3]
        torch.testing.assert_close(denoiser(x, sigma), x - sigma * eps, atol=1e-5 * (1 + sigma.item()), rtol=1e-5)


def test_timestep_is_the_nearest_in_log_sigma():
    denoiser = make("fractional")
    low, high = denoiser.sigmas[10].item(), denoiser.sigmas[11].item()
    middle = (low * high) ** 0.5
    assert denoiser.timestep(torch.tensor([middle * 0.9999, middle * 1.0001])).tolist() == [10, 11]
    assert denoiser.timestep(torch.tensor([1e-9, 1e9])).tolist() == [0, 999]


def test_batch_of_noise_levels_equals_one_by_one():
    denoiser = make("conv_resample")
    x, sigma = formula_input(16), torch.tensor([0.3, 40.0])
    one_by_one = torch.cat([denoiser(x[i : i + 1], sigma[i]) for i in range(2)])
    torch.testing.assert_close(denoiser(x, sigma), one_by_one, atol=1e-4 * 40, rtol=1e-5)
    assert torch.equal(denoiser(x, 0.3), denoiser(x, torch.tensor(0.3)))


def test_differentiable_in_x_with_frozen_weights():
    denoiser = make("fractional")
    x = formula_input(16).requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser(x, torch.tensor(2.0)).square().mean(), x)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    assert not any(p.requires_grad for p in denoiser.parameters())


def test_half_precision_network_takes_and_gives_float32():
    exact = make("fractional")
    unet = UNet(exact.config.unet, dtype=torch.float16)
    unet.load_state_dict(exact.unet.state_dict())
    half = GuidedDiffusionDenoiser(unet, exact.config)
    x = formula_input(16)
    out = half(x, 1.0)
    assert out.dtype == torch.float32
    assert (out - exact(x, 1.0)).std() < 0.02


def test_labels():
    denoiser = make("imagenet64_like")
    x = formula_input(16)
    by_call = denoiser(x, 1.0, label=torch.tensor([1, 7]))
    torch.testing.assert_close(by_call[:1], denoiser(x[:1], 1.0, label=1))
    torch.testing.assert_close(by_call[1:], make("imagenet64_like", label=7)(x[1:], 1.0))
    assert (by_call[:1] - denoiser(x[:1], 1.0, label=7)).abs().max() > 1e-3
    for label, message in ((None, "none was given"), (10, "0..9, got 10"), (-1, "0..9"), (torch.tensor([1, 10]), "10")):
        with pytest.raises(ValueError, match=message):
            denoiser(x, 1.0, label=label)
    with pytest.raises(ValueError, match="batch of 2"):
        denoiser(x, 1.0, label=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="unconditional"):
        make("fractional", label=3)


def test_wrong_inputs():
    denoiser = make("fractional")
    assert denoiser.size_multiple == 4 and denoiser.image_size == 16
    with pytest.raises(ValueError, match=r"multiples of 4 \(trained at 16\), got 16 x 18"):
        denoiser(torch.zeros(1, 3, 16, 18), 1.0)
    with pytest.raises(ValueError, match=r"x must be \(B, 3, H, W\), got \(1, 4, 16, 16\)"):
        denoiser(torch.zeros(1, 4, 16, 16), 1.0)
    with pytest.raises(ValueError, match="3 values for a batch of 2"):
        denoiser(torch.zeros(2, 3, 16, 16), torch.ones(3))
    assert denoiser(torch.zeros(1, 3, 16, 24), 1.0).shape == (1, 3, 16, 24)
