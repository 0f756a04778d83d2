"""The samplers against closed forms: for data N(0, 1) the best denoiser is x / (1 + sigma^2)."""

import pytest
import torch

from gradpaint.method.known_region import combine_image
from gradpaint.method.losses import masked_mse
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from gradpaint.sampling.inpaint import inpaint
from gradpaint.sampling.run import ddim_step, ddpm_step

SIGMAS = torch.tensor([10.0, 4.0, 1.5, 0.5, 0.0])
OFF = AlignmentSettings(lambda_al=0.0)


def gaussian(x, sigma):
    return x / (1 + sigma**2)


def coupled(x, sigma):
    """A denoiser whose pixels depend on each other, so that the hole can answer to the known part."""
    kernel = torch.full((3, 1, 5, 5), 1 / 25, dtype=x.dtype)
    return torch.nn.functional.conv2d(gaussian(x, sigma), kernel, padding=2, groups=3)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, 3, 12, 12, generator=generator) * 1.6 - 0.8
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:9, 4:10] = 1
    return y, mask


def test_ddim_is_the_exact_solution_at_many_steps():
    # The probability flow ODE of N(0, 1) data: x(sigma) = x(sigma_0) * sqrt((1 + sigma^2) / (1 + sigma_0^2)).
    levels = torch.linspace(5, 0, 4001, dtype=torch.float64).tolist()
    x = start = torch.tensor([2.0, -1.0], dtype=torch.float64)
    for sigma, sigma_next in zip(levels, levels[1:]):
        x = ddim_step(x, gaussian(x, sigma), sigma, sigma_next, None)
    assert torch.allclose(x, start / 26**0.5, rtol=2e-3)


def test_ddpm_draws_from_the_posterior():
    # q(x_next | x, x0) of the VE chain x = x_next + sqrt(sigma^2 - sigma_next^2) * eps, by Bayes' rule.
    sigma, sigma_next, x, x0 = 2.0, 1.2, torch.tensor([1.7]), torch.tensor([0.4])
    a, b = sigma_next**2, sigma**2 - sigma_next**2
    mean, spread = (x0 * b + x * a) / (a + b), (a * b / (a + b)) ** 0.5
    for z in (0.0, 1.0, -2.0):
        drawn = ddpm_step(x, x0, sigma, sigma_next, lambda z=z: torch.tensor([z]))
        assert drawn.item() == pytest.approx(float(mean + spread * z))


def test_ddpm_keeps_the_marginal():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, generator=generator) * 101**0.5
    levels = [10.0, 6.0, 3.0, 1.0]
    for sigma, sigma_next in zip(levels, levels[1:]):
        truth = torch.randn(x.shape, generator=generator) * (sigma**2 / (1 + sigma**2)) ** 0.5 + gaussian(x, sigma)
        x = ddpm_step(x, truth, sigma, sigma_next, lambda: torch.randn(200_000, generator=generator))
    assert x.var().item() == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("method", ["gradpaint", "combine_image", "combine_noisy"])
def test_known_pixels_are_exact_and_runs_repeat(case, method, sampler):
    y, mask = case
    run = lambda seed: inpaint(
        coupled, y, mask, sigmas=SIGMAS, method=method, sampler=sampler, seed=seed, progress=False
    )
    result, again, other = run(1), run(1), run(2)
    known = (mask == 0).expand_as(y)
    assert torch.equal(result.image[known], y[known])
    assert torch.equal(result.image, again.image) and not torch.equal(result.image, other.image)
    assert result.image.isfinite().all() and result.image.abs().max() <= 1
    assert result.evaluations == 4 and result.backwards == (2 if method == "gradpaint" else 0)
    assert [r.guided for r in result.record] == [method == "gradpaint"] * 2 + [False] * 2


@pytest.mark.parametrize("method", ["gradpaint", "combine_image", "combine_noisy"])
def test_nothing_leaks_from_under_the_hole(case, method):
    y, mask = case
    other = combine_image(torch.full_like(y, float("nan")), y, mask)
    a = inpaint(coupled, y, mask, sigmas=SIGMAS, method=method, progress=False)
    b = inpaint(coupled, other, mask, sigmas=SIGMAS, method=method, progress=False)
    assert torch.equal(a.image, b.image)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("normalization", ["rms", "l2"])
def test_the_next_state_moves_by_eq_9(case, sampler, normalization):
    y, mask = case
    seen = {}

    def spy(x, sigma):
        seen.setdefault(float(sigma), x.detach().clone())
        return coupled(x, sigma)

    states = []
    for alpha in (0.0, 0.3):
        seen.clear()
        settings = GuidanceSettings(
            alpha=alpha, alignment=OFF, schedule=GuideSchedule(mode="steps", steps=1), normalization=normalization
        )
        inpaint(spy, y, mask, sigmas=SIGMAS, sampler=sampler, settings=settings, progress=False)
        states.append(dict(seen))
    start = states[0][10.0].clone().requires_grad_()
    loss = masked_mse(coupled(start, 10.0), y, mask).sum()
    (grad,) = torch.autograd.grad(loss, start)
    norm = grad.flatten(1).square().mean(1).sqrt() if normalization == "rms" else grad.flatten(1).norm(dim=1)
    expected = -0.3 * 17**0.5 * grad / norm.view(-1, 1, 1, 1)
    assert torch.allclose(states[1][4.0] - states[0][4.0], expected, atol=1e-5)


def test_guidance_lowers_the_loss(case):
    y, mask = case
    full = GuidanceSettings(alpha=0.1, alignment=OFF, schedule=GuideSchedule.full())
    final = {}
    for alpha in (0.0, 0.1):
        settings = GuidanceSettings(alpha=alpha, alignment=OFF, schedule=full.schedule)
        sigmas = torch.linspace(3, 0, 30)
        result = inpaint(coupled, y, mask, sigmas=sigmas, settings=settings, progress=False, keep_x0=[28])
        final[alpha] = masked_mse(result.record[-1].x0_hat, y, mask)
    assert (final[0.1] < final[0.0]).all()


def test_alpha_zero_is_combine_image(case):
    y, mask = case
    a = inpaint(coupled, y, mask, sigmas=SIGMAS, settings=GuidanceSettings(alpha=0.0), progress=False)
    b = inpaint(coupled, y, mask, sigmas=SIGMAS, method="combine_image", progress=False)
    assert torch.equal(a.image, b.image)


def test_samples_of_a_batch_do_not_influence_each_other(case):
    y, mask = case
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    both = inpaint(coupled, y, mask, sigmas=SIGMAS, noise=noise, progress=False).image
    alone = inpaint(coupled, y[:1], mask, sigmas=SIGMAS, noise=noise[:1], progress=False).image
    assert torch.allclose(both[:1], alone, atol=1e-6)


def test_record_and_callback(case):
    y, mask = case
    steps = []
    result = inpaint(coupled, y, mask, sigmas=SIGMAS, keep_x0=True, progress=False, callback=steps.append)
    assert steps == result.record and [r.sigma for r in steps] == [10.0, 4.0, 1.5, 0.5]
    first, last = steps[0], steps[-1]
    assert first.x0_hat.shape == y.shape and first.losses["total"].shape == (2,) and first.gradient_rms.gt(0).all()
    assert not last.losses and last.gradient_rms is None and last.x0_hat is not None
    assert torch.allclose(first.losses["mse"], masked_mse(first.x0_hat, y, mask), rtol=1e-5)


def test_a_callback_can_stop_the_run(case):
    y, mask = case

    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    with pytest.raises(Stop):
        inpaint(coupled, y, mask, sigmas=SIGMAS, progress=False, callback=stop)


def test_a_gradient_that_is_not_finite_never_reaches_the_image(case):
    y, mask = case

    def broken(x, sigma):
        return coupled(x, sigma) + 0 * (x - x).sqrt()  # finite value, infinite derivative

    result = inpaint(broken, y, mask, sigmas=SIGMAS, progress=False)
    assert result.skipped == 4 and result.image.isfinite().all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "magic"}, "method is 'magic'.*gradpaint, combine_image, combine_noisy"),
        ({"sampler": "euler_a"}, "sampler is 'euler_a'"),
        ({"sigmas": torch.tensor([1.0, 2.0])}, "sigmas is"),
        ({"sigmas": torch.tensor([1.0])}, "sigmas is"),
        ({"noise": torch.zeros(1, 3, 4, 4)}, "noise has shape"),
        ({"mask": torch.zeros(1, 1, 3, 3)}, "mask has shape"),
    ],
)
def test_errors(case, change, message):
    y, mask = case
    arguments = {"mask": mask, "sigmas": SIGMAS, "progress": False, **change}
    with pytest.raises(ValueError, match=message):
        inpaint(coupled, y, arguments.pop("mask"), **arguments)


@pytest.mark.parametrize("given", [True, False])
def test_the_steps_noise_is_not_the_first_state_again(case, given):
    y, mask = case
    first = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    states = []

    def spy(x, sigma):
        states.append(x.detach().clone())
        return torch.zeros_like(x)

    hole = torch.ones_like(mask)
    inpaint(
        spy,
        y,
        hole,
        sigmas=SIGMAS,
        sampler="ddpm",
        seed=5,
        noise=first if given else None,
        progress=False,
        method="combine_image",
        full_noise=False,
    )
    assert torch.allclose(states[0], 10 * first)
    drawn = (states[1] - states[0] * 0.16) / (4.0 * 0.84**0.5)
    assert abs(torch.corrcoef(torch.stack([drawn.flatten(), first.flatten()]))[0, 1]) < 0.15
    assert drawn.std().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("method", ["gradpaint", "combine_image", "combine_noisy"])
def test_grey_parts_are_mixed_once(method):
    y, mask = torch.full((1, 3, 4, 4), -1.0), torch.full((1, 1, 4, 4), 0.5)
    out = inpaint(
        lambda x, sigma: torch.ones_like(x) + 0 * x,
        y,
        mask,
        sigmas=SIGMAS,
        method=method,
        progress=False,
        settings=GuidanceSettings(alpha=0.0),
    )
    assert torch.allclose(out.image, torch.zeros_like(y))
