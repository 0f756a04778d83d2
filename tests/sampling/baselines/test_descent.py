"""MCG and DPS against their papers' equations, by hand, for images whose best denoiser is a matrix."""

import pytest
import torch

from gradpaint.sampling.methods import METHODS

SIGMAS = torch.tensor([3.0, 1.2, 0.0])
SHAPE = (2, 1, 4, 5)
mcg, dps = METHODS["mcg"].run, METHODS["dps"].run


@pytest.fixture
def case():
    """Gaussian images with covariance C: x0_hat = C (C + sigma^2)^-1 x, every pixel on every other."""
    generator = torch.Generator().manual_seed(4)
    root = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    covariance = root @ root.T / 20 + 0.1 * torch.eye(20, dtype=torch.float64)
    matrix = lambda sigma: covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(20))
    y = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    mask = torch.zeros(1, 1, 4, 5, dtype=torch.float64)
    mask[..., 1:3, 1:4] = 1
    noise = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return matrix, y, mask, noise


def by_hand(case, size, project, fresh):
    """Two DDIM steps in the papers' own unit-variance state z = sqrt(ac)*x0 + sqrt(1-ac)*eps, ac = 1/(1+sigma^2)."""
    matrix, y, mask, noise = case
    m = (1 - mask).flatten()  # 1 where known
    y, noise = (y * (1 - mask)).flatten(1), noise.flatten(1)
    levels = [float(s) for s in SIGMAS]
    ac = [1 / (1 + s * s) for s in levels]
    z = noise + ac[0] ** 0.5 * y
    for i in range(2):
        w = matrix(levels[i]) / ac[i] ** 0.5  # x0_hat = w z
        x0_hat = z @ w.T
        error = m * (y - x0_hat)
        gradient = -(error @ w) / error.norm(dim=1, keepdim=True)  # of the norm, in z
        eps = (z - ac[i] ** 0.5 * x0_hat) / (1 - ac[i]) ** 0.5
        z = ac[i + 1] ** 0.5 * x0_hat + (1 - ac[i + 1]) ** 0.5 * eps - size * gradient
        if project:
            q = ac[i + 1] ** 0.5 * y + (1 - ac[i + 1]) ** 0.5 * fresh[i]
            z = (1 - m) * z + m * q
    return torch.where(m > 0, y, z).reshape(SHAPE)


def denoiser(matrix):
    return lambda x, sigma: (x.flatten(1) @ matrix(float(sigma)).T).view_as(x)


@pytest.mark.parametrize("zeta", [0.0, 0.5, 2.0])
def test_dps(case, zeta):
    matrix, y, mask, noise = case
    result = dps(
        denoiser(matrix), y, mask, sigmas=SIGMAS, noise=noise, sampler="ddim", clip=None, zeta=zeta, progress=False
    )
    assert torch.allclose(result.image, by_hand(case, zeta, False, None), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_mcg(case, step):
    matrix, y, mask, noise = case
    generator = torch.Generator().manual_seed(7 + 1)  # what the run draws from
    fresh = torch.randn(SHAPE, generator=generator).double().flatten(1), torch.zeros(2, 20, dtype=torch.float64)
    result = mcg(
        denoiser(matrix),
        y,
        mask,
        sigmas=SIGMAS,
        noise=noise,
        seed=7,
        sampler="ddim",
        clip=None,
        step=step,
        progress=False,
    )
    assert torch.allclose(result.image, by_hand(case, step, True, fresh), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(result.image, by_hand(case, step + 0.1, True, fresh), rtol=1e-5, atol=1e-6)


def test_the_record_tells_the_length_of_the_error(case):
    matrix, y, mask, noise = case
    result = dps(denoiser(matrix), y, mask, sigmas=SIGMAS, noise=noise, sampler="ddim", clip=None, progress=False)
    x = noise * (1 + float(SIGMAS[0]) ** 2) ** 0.5 + y * (1 - mask)
    error = (1 - mask) * (denoiser(matrix)(x, SIGMAS[0]) - y)
    first = result.record[0]
    assert torch.allclose(first.losses["total"].double(), error.flatten(1).norm(dim=1), rtol=1e-5)
    assert torch.allclose(first.losses["mse"].double(), error.square().flatten(1).sum(1) / 14, rtol=1e-5)


@pytest.mark.parametrize("method", [mcg, dps])
def test_a_sample_whose_gradient_is_not_finite_stays(case, method):
    matrix, y, mask, noise = case

    def broken(x, sigma):
        x0_hat = denoiser(matrix)(x, sigma)
        if x.requires_grad:
            x0_hat.register_hook(lambda grad: grad * torch.tensor([1.0, float("nan")]).view(2, 1, 1, 1).to(grad))
        return x0_hat

    runs = [
        method(model, y, mask, sigmas=SIGMAS, noise=noise, sampler="ddim", clip=None, progress=False)
        for model in (denoiser(matrix), broken)
    ]
    assert runs[1].skipped == 2 and runs[1].image.isfinite().all()
    assert torch.equal(runs[0].image[0], runs[1].image[0])
    assert not torch.allclose(runs[0].image[1], runs[1].image[1])


@pytest.mark.parametrize("method", [mcg, dps])
def test_nothing_known_or_known_exactly_moves_nothing(case, method):
    matrix, y, mask, noise = case
    result = method(
        denoiser(matrix),
        y,
        torch.ones_like(mask),
        sigmas=SIGMAS,
        noise=noise,
        sampler="ddim",
        clip=None,
        progress=False,
    )
    still = method(
        denoiser(matrix),
        y,
        torch.ones_like(mask),
        sigmas=SIGMAS,
        noise=noise,
        sampler="ddim",
        clip=None,
        progress=False,
        **{"step" if method == mcg else "zeta": 0.0},
    )
    assert torch.equal(result.image, still.image) and result.skipped == 0
    exact = method(lambda x, sigma: y + 0 * x, y, mask, sigmas=SIGMAS, noise=noise, clip=None, progress=False)
    assert torch.allclose(exact.image, y) and exact.skipped == 0
