"""The library's speed options: what is differentiated, what is kept, what it costs."""

import pytest
import torch

from gradpaint.method.gradient import loss_gradient, wiener, x0_gradient
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from gradpaint.method.step import normalize
from gradpaint.method.terms import loss_terms, total_loss
from gradpaint.sampling.classifier_free import ClassifierFree
from gradpaint.sampling.inpaint import inpaint

SIGMAS = torch.tensor([10.0, 6.0, 3.0, 1.5, 0.7, 0.3, 0.0])
ALIGNMENT = AlignmentSettings(lambda_al=0.5)
TERMS = loss_terms(GuidanceSettings(alignment=ALIGNMENT))
MSE_ALONE = loss_terms(GuidanceSettings(alignment=AlignmentSettings(lambda_al=0.0)))


def blur(size):
    def denoise(x, sigma):
        kernel = torch.full((3, 1, size, size), 1 / size**2, dtype=x.dtype)
        return torch.tanh(torch.nn.functional.conv2d(x / (1 + sigma**2), kernel, padding=size // 2, groups=3))

    return denoise


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, 3, 12, 12, generator=generator) * 1.6 - 0.8
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:9, 4:10] = 1
    return y, mask


class Counted:
    """A denoiser that notes whether each call was given a state with a graph."""

    def __init__(self, denoise):
        self.denoise, self.graphs = denoise, []

    def __call__(self, x, sigma):
        out = self.denoise(x, sigma)
        self.graphs.append(out.requires_grad)
        return out


def settings(every=1, between="plain", fraction=1.0, **changes):
    return GuidanceSettings(schedule=GuideSchedule(fraction=fraction, every=every, between=between), **changes)


def test_through_cond_is_the_gradient_with_the_other_branch_constant(case):
    y, mask = case
    system = ClassifierFree(positive := Counted(blur(3)), negative := Counted(blur(5)), 3.0)
    x = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    constant = blur(5)(x, 1.5)
    grads = []
    for call in (system.through_cond, lambda x, s: constant + 3.0 * (blur(3)(x, s) - constant), system):
        leaf = x.clone().requires_grad_()
        grads.append(loss_gradient(leaf, call(leaf, 1.5), y, mask, TERMS).gradient)
    assert torch.allclose(grads[0], grads[1]) and not torch.allclose(grads[0], grads[2], rtol=0.1)
    assert positive.graphs == [True, True] and negative.graphs == [False, True]
    assert torch.equal(system(x, 1.5), system.through_cond(x, 1.5))


def test_inpaint_by_cond(case):
    y, mask = case
    system = ClassifierFree(positive := Counted(blur(3)), negative := Counted(blur(5)), 3.0)
    run = lambda denoiser, gradient: inpaint(
        denoiser, y, mask, sigmas=SIGMAS, progress=False, settings=settings(fraction=0.5, gradient=gradient)
    )
    result = run(system, "cond")
    assert positive.graphs == [True] * 3 + [False] * 3 and negative.graphs == [False] * 6
    assert result.evaluations == 6 and result.backwards == 3
    assert not torch.equal(result.image, run(system, "model").image)
    # One branch alone: nothing to leave out.
    assert torch.equal(run(blur(3), "cond").image, run(blur(3), "model").image)


def test_x0_gradient_is_the_filtered_gradient_of_the_masked_mse(case):
    y, mask = case
    x0_hat = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    found = x0_gradient(x0_hat, y, mask, TERMS, 0.8, 0.6)
    leaf = x0_hat.clone().requires_grad_()
    losses = total_loss(leaf, y, mask, TERMS)
    (grad,) = torch.autograd.grad(losses["mse"].sum(), leaf)
    assert torch.allclose(found.gradient, wiener(grad, 0.8, 0.6), atol=1e-7)
    assert torch.allclose(found.rms, found.gradient.flatten(1).square().mean(1).sqrt())
    assert torch.allclose(found.losses["total"], losses["total"].detach()) and found.losses["alignment"].gt(0).all()
    assert found.gradient[..., 4:8, 5:9].abs().min() > 0  # it reaches the middle of the hole


def test_x0_gradient_of_a_packed_state_filters_each_part():
    generator = torch.Generator().manual_seed(1)
    parts = [torch.Size((2, 3, 2, 8, 6)), torch.Size((2, 4, 5, 7)), torch.Size((2, 9))]
    x0_hat, y = ([torch.randn(shape, generator=generator) for shape in parts] for _ in range(2))
    masks = [(torch.rand(shape, generator=generator) > 0.5).float() for shape in parts]
    pack = lambda tensors: torch.cat([t.flatten(1) for t in tensors], 1)[:, None]
    found = x0_gradient(pack(x0_hat), pack(y), pack(masks), MSE_ALONE, 0.8, 0.6, components=parts)
    errors = [(1 - m) * (x - t) for m, x, t in zip(masks, x0_hat, y)]
    expected = pack([wiener(errors[0], 0.8, 0.6), wiener(errors[1], 0.8, 0.6), errors[2]])
    scale = 2 / (1 - pack(masks)).sum((1, 2), keepdim=True)
    assert torch.allclose(found.gradient, scale * expected, atol=1e-7)


@pytest.mark.parametrize("a, b", [(1.0, 0.1), (1.0, 5.0), (0.3, 0.7), (0.0, 1.0)])
def test_wiener_is_symmetric_and_positive(a, b):
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        u, v = torch.randn(2, 1, 9, 14, generator=generator, dtype=torch.float64)
        fu, fv = wiener(u, a, b), wiener(v, a, b)
        assert (u * fv).sum().item() == pytest.approx((v * fu).sum().item(), rel=1e-6)
        assert (u * fu).sum() > 0
    constant = torch.full((1, 9, 14), 2.0)
    assert torch.allclose(wiener(constant, a, b), wiener(constant, a, b).mean().expand_as(constant), rtol=1e-4)


def test_wiener_is_the_derivative_of_the_best_denoiser_of_gaussian_images():
    """x0 with covariance S by construction; the best linear estimate from x = a*x0 + b*eps, fitted on many samples."""
    generator = torch.Generator().manual_seed(0)
    size, a, b, count = 4, 0.8, 0.6, 200_000
    basis = torch.eye(size * size).view(-1, size, size)
    response = torch.stack([wiener(e, a, b).flatten() for e in basis]).double()  # S / (a^2 S + b^2), a matrix
    covariance = b * b * response @ torch.linalg.inv(torch.eye(size * size) - a * a * response)
    root = torch.linalg.cholesky((covariance + covariance.T) / 2)
    x0 = torch.randn(count, size * size, generator=generator, dtype=torch.float64) @ root.T
    x = a * x0 + b * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    fitted = torch.linalg.lstsq(x, x0).solution
    assert torch.allclose(fitted, a * response, atol=0.01)


def test_x0_points_the_way_of_the_exact_gradient_of_an_ideal_denoiser(case):
    """One whose derivative is symmetric and positive, as a covariance is."""
    y, mask = case
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (binomial[:, None] * binomial).expand(3, 1, 3, 3)
    for sigma in (0.5, 3.0, 20.0):
        leaf = (torch.randn(y.shape, generator=torch.Generator().manual_seed(1)) * sigma).requires_grad_()
        x0_hat = torch.nn.functional.conv2d(leaf / (1 + sigma**2), kernel, padding=1, groups=3)
        exact = loss_gradient(leaf, x0_hat, y, mask, MSE_ALONE, sigma).gradient
        cheap = x0_gradient(x0_hat, y, mask, TERMS, b=sigma).gradient
        assert (torch.nn.functional.cosine_similarity(exact.flatten(1), cheap.flatten(1)) > 0.3).all()


def test_x0_leaves_packed_latents_unfiltered():
    y, x0_hat = torch.zeros(1, 2, 6), torch.ones(1, 2, 6)
    mask = torch.tensor([0.0, 0, 0, 1, 1, 1]).expand(1, 2, 6)
    found = x0_gradient(x0_hat, y, mask, MSE_ALONE)
    assert torch.allclose(found.gradient, (1 - mask) * 2 / 6)


def test_inpaint_by_x0_never_differentiates_the_model(case):
    y, mask = case
    denoise = Counted(blur(3))
    result = inpaint(denoise, y, mask, sigmas=SIGMAS, progress=False, settings=settings(fraction=0.5, gradient="x0"))
    assert denoise.graphs == [False] * 6 and result.evaluations == 6 and result.backwards == 0
    assert [r.guided for r in result.record] == [True] * 3 + [False] * 3
    assert all(r.losses["total"].isfinite().all() and r.gradient_rms.gt(0).all() for r in result.record[:3])
    plain = inpaint(blur(3), y, mask, sigmas=SIGMAS, progress=False, method="combine_image")
    assert not torch.allclose(result.image, plain.image)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("gradient", ["model", "x0"])
def test_kept_steps_take_the_last_direction_at_their_own_scale(case, sampler, gradient):
    y, mask = case
    states, found = {}, []
    for between in ("plain", "keep"):
        seen = states[between] = []

        def fixed(x, sigma, seen=seen):
            seen.append(x.detach().clone())
            return torch.tanh(x) * 1e-6 + y.flip(-1)  # hardly depends on the state: the runs stay comparable

        options = settings(every=3, between=between, gradient=gradient, alignment=ALIGNMENT, alpha=0.1)
        result = inpaint(fixed, y, mask, sigmas=SIGMAS, sampler=sampler, settings=options, progress=False)
        assert [r.guided for r in result.record] == [i % 3 == 0 for i in range(6)]
        assert [r.reused for r in result.record] == [between == "keep" and i % 3 != 0 for i in range(6)]
        assert all(not r.losses and r.gradient_rms is None for r in result.record if not r.guided)
        assert result.backwards == (2 if gradient == "model" else 0) and result.evaluations == 6
    start = states["keep"][0].clone().requires_grad_()
    x0_hat = torch.tanh(start) * 1e-6 + y.flip(-1)
    found = (
        loss_gradient(start, x0_hat, y, mask, TERMS, 10.0)
        if gradient == "model"
        else x0_gradient(x0_hat, y, mask, TERMS, b=10.0)
    )
    g_hat, _ = normalize(found.gradient)
    moved = torch.zeros_like(y)
    for k, (sigma, sigma_next) in enumerate(zip(SIGMAS[:3].tolist(), SIGMAS[1:4].tolist())):
        ratio = sigma_next / sigma if sampler == "ddim" else (sigma_next / sigma) ** 2  # how far a state is inherited
        moved = moved * ratio - (0.1 * (1 + sigma_next**2) ** 0.5 * g_hat if k else 0)
        assert torch.allclose(states["keep"][k + 1] - states["plain"][k + 1], moved, atol=1e-4)


def test_a_direction_that_is_not_finite_is_not_kept_either(case):
    y, mask = case
    broken = lambda x, sigma: blur(3)(x, sigma) + 0 * (x - x).sqrt()
    result = inpaint(broken, y, mask, sigmas=SIGMAS, progress=False, settings=settings(every=3, between="keep"))
    assert result.image.isfinite().all() and result.skipped == 12
