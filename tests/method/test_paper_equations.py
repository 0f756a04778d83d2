"""Eqs. 5 to 9 as printed, in float64, against loops over pixels that were written from the paper's text alone.

The loops know nothing of the library: no shared helper, no vectorization, derivatives by hand or by central differences
of the loops themselves.
"""

import math

import pytest
import torch

from gradpaint.method.gradient import loss_gradient
from gradpaint.method.losses import alignment_loss, masked_mse_eq5
from gradpaint.method.plan import RunPlan, Step, step_kinds
from gradpaint.method.record import StepKind
from gradpaint.method.settings import PRESETS, GuidanceSettings, preset
from gradpaint.method.step import displacement
from gradpaint.method.terms import loss_terms, total_loss

H, W = 6, 5


def problem(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0_hat, y = (torch.randn(batch, 3, H, W, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros(1, 1, H, W, dtype=torch.float64)
    mask[..., 2:4, 1:4] = 1
    mask[..., 4, 2] = 1
    return x0_hat, y, mask


# ---- the equations, pixel by pixel. image[channel][row][column]; M[row][column] is 1 in the hole


def eq5(estimate, image, M):
    total = 0.0
    for c in range(3):
        for i in range(H):
            for j in range(W):
                total += ((1 - M[i][j]) * estimate[c][i][j] - (1 - M[i][j]) * image[c][i][j]) ** 2
    return total / (H * W)


def eq7(plane, i, j):
    """Unit gradient at a pixel, (x, y); forward differences, none beyond the image."""
    gx = plane[i][j + 1] - plane[i][j] if j + 1 < W else 0.0
    gy = plane[i + 1][j] - plane[i][j] if i + 1 < H else 0.0
    length = math.hypot(gx, gy)
    return (gx / length, gy / length) if length > 0 else (0.0, 0.0)


def eq6(estimate, image, M):
    known = [[1 - M[i][j] for j in range(W)] for i in range(H)]
    planes = []
    for c in range(3):
        collage = [[M[i][j] * estimate[c][i][j] + known[i][j] * image[c][i][j] for j in range(W)] for i in range(H)]
        total = 0.0
        for i in range(H):
            for j in range(W):
                (cx, cy), (mx, my) = eq7(collage, i, j), eq7(known, i, j)
                total += (cx * mx + cy * my) ** 2
        planes.append(total / (H * W))
    return sum(planes) / 3


def by_pixels(loss, x0_hat, y, mask):
    M = mask[0, 0].tolist()
    return torch.tensor([loss(a, b, M) for a, b in zip(x0_hat.tolist(), y.tolist())], dtype=torch.float64)


def numeric_gradient(loss, x0_hat, y, mask, h=1e-6):
    """Central differences of the loops, extrapolated once (Richardson)."""
    gradient = torch.zeros_like(x0_hat)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in x0_hat.shape)).tolist():
        slopes = []
        for step in (h, h / 2):
            moved = []
            for sign in (1, -1):
                other = x0_hat.clone()
                other[tuple(index)] += sign * step
                moved.append(by_pixels(loss, other, y, mask)[index[0]])
            slopes.append((moved[0] - moved[1]) / (2 * step))
        gradient[tuple(index)] = (4 * slopes[1] - slopes[0]) / 3
    return gradient


def exact_gradient_of_eq5(x0_hat, y, mask):
    return 2 * (1 - mask) ** 2 * (x0_hat - y) / (H * W)


def exact_gradient_of_eq6(x0_hat, y, mask):
    """By hand: with g = (a, b), r = |g| and s = (a mx + b my) / r, ds/da = (mx - s a / r) / r."""
    M, gradient = mask[0, 0].tolist(), torch.zeros_like(x0_hat)
    known = [[1 - M[i][j] for j in range(W)] for i in range(H)]
    for sample in range(len(x0_hat)):
        for c in range(3):
            plane = [
                [M[i][j] * x0_hat[sample, c, i, j].item() + known[i][j] * y[sample, c, i, j].item() for j in range(W)]
                for i in range(H)
            ]
            for i in range(H):
                for j in range(W):
                    a = plane[i][j + 1] - plane[i][j] if j + 1 < W else 0.0
                    b = plane[i + 1][j] - plane[i][j] if i + 1 < H else 0.0
                    r = math.hypot(a, b)
                    mx, my = eq7(known, i, j)
                    if r == 0 or (mx, my) == (0.0, 0.0):
                        continue
                    s = (a * mx + b * my) / r
                    da, db = 2 * s * (mx - s * a / r) / r, 2 * s * (my - s * b / r) / r
                    for (row, column), slope in (((i, j + 1), da), ((i + 1, j), db), ((i, j), -da - db)):
                        if row < H and column < W:  # beyond the image slope is 0: that difference is none
                            gradient[sample, c, row, column] += slope * M[row][column] / (H * W) / 3
                    # Where a pixel is in the last column or row one of da, db must not reach it.
                    if j + 1 >= W:
                        gradient[sample, c, i, j] += da * M[i][j] / (H * W) / 3
                    if i + 1 >= H:
                        gradient[sample, c, i, j] += db * M[i][j] / (H * W) / 3
    return gradient


def autograd(loss, x0_hat):
    leaf = x0_hat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return gradient


def test_eq5():
    x0_hat, y, mask = problem()
    assert torch.allclose(masked_mse_eq5(x0_hat, y, mask), by_pixels(eq5, x0_hat, y, mask), rtol=0, atol=1e-12)
    ours = autograd(lambda x: masked_mse_eq5(x, y, mask), x0_hat)
    assert torch.allclose(ours, exact_gradient_of_eq5(x0_hat, y, mask), rtol=0, atol=1e-12)


def test_eq6_with_eq7():
    x0_hat, y, mask = problem()
    assert torch.allclose(alignment_loss(x0_hat, y, mask), by_pixels(eq6, x0_hat, y, mask), rtol=0, atol=1e-12)
    exact = exact_gradient_of_eq6(x0_hat, y, mask)
    ours = autograd(lambda x: alignment_loss(x, y, mask), x0_hat)
    assert torch.allclose(ours, exact, rtol=0, atol=1e-10) and exact.abs().max() > 1e-3
    assert torch.allclose(numeric_gradient(eq6, x0_hat, y, mask), exact, rtol=1e-5, atol=1e-8)
    assert not (ours * (1 - mask)).any()  # it flows through the hole alone


def test_eq6_is_least_where_nothing_changes_across_the_border():
    """Stripes along the border cost nothing, stripes across it 1 a border pixel."""
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., 4:] = 1  # the border is upright
    rows = torch.arange(8, dtype=torch.float64).view(1, 1, 8, 1).expand(1, 3, 8, 8).contiguous()
    columns = rows.transpose(-1, -2).contiguous()
    assert alignment_loss(rows, rows, mask).item() == 0
    assert alignment_loss(columns, columns, mask).item() == pytest.approx(8 / 64)  # one column of border pixels


def test_gray_masks_and_videos():
    x0_hat, y, _ = problem()
    soft = torch.linspace(0, 1, W, dtype=torch.float64).expand(1, 1, H, W).contiguous()
    assert torch.allclose(masked_mse_eq5(x0_hat, y, soft), by_pixels(eq5, x0_hat, y, soft), rtol=0, atol=1e-12)
    assert torch.allclose(alignment_loss(x0_hat, y, soft), by_pixels(eq6, x0_hat, y, soft), rtol=0, atol=1e-12)
    frames, others, mask = torch.stack([x0_hat, y], 2), torch.stack([y, y + 1], 2), soft.unsqueeze(2)
    for loss in (masked_mse_eq5, alignment_loss):
        each = (loss(x0_hat, y, soft) + loss(y, y + 1, soft)) / 2
        assert torch.allclose(loss(frames, others, mask), each, rtol=0, atol=1e-12)


def test_eq8_is_their_sum_with_weight_400():
    x0_hat, y, mask = problem()
    losses = total_loss(x0_hat, y, mask, loss_terms(GuidanceSettings.paper()))
    expected = by_pixels(eq5, x0_hat, y, mask) + 400 * by_pixels(eq6, x0_hat, y, mask)
    assert torch.allclose(losses["total"], expected, rtol=0, atol=1e-10)


def test_softness_is_for_the_collage_alone():
    x0_hat, y, mask = problem()
    near = alignment_loss(x0_hat, y, mask, softness=1e-7)
    assert torch.allclose(near, alignment_loss(x0_hat, y, mask), atol=1e-9)
    assert (alignment_loss(x0_hat, y, mask, softness=0.5) < near).all()
    assert alignment_loss(x0_hat, y, 0.3 * mask, softness=1e-7).gt(0).all()  # a faint mask's edge is an edge


@pytest.mark.parametrize("normalization", ["l2", "rms"])
def test_eq9(normalization):
    """Through a denoiser that is a matrix, so that the gradient in x_t is known."""
    x0_hat, y, mask = problem()
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(3 * H * W, 3 * H * W, generator=generator, dtype=torch.float64) / 8
    x = torch.randn(2, 3, H, W, generator=generator, dtype=torch.float64)
    denoise = lambda x: (x.flatten(1) @ matrix.T).view_as(x)
    estimate = denoise(x)
    in_estimate = exact_gradient_of_eq5(estimate, y, mask) + 400 * exact_gradient_of_eq6(estimate, y, mask)
    in_x = in_estimate.flatten(1) @ matrix
    size = in_x.norm(dim=1) if normalization == "l2" else in_x.square().mean(1).sqrt()
    expected = -0.005 * (in_x / size[:, None]).view_as(x)
    leaf = x.clone().requires_grad_()
    gradient = loss_gradient(leaf, denoise(leaf), y, mask, loss_terms(GuidanceSettings.paper(normalization)))
    moved, usable = displacement(gradient.gradient, 0.005, 1.0, normalization)
    assert usable.all() and torch.allclose(moved, expected, rtol=1e-4, atol=1e-9)  # eqs. 5-8 run in float32 inside
    if normalization == "l2":
        assert torch.allclose(moved.flatten(1).norm(dim=1), torch.full((2,), 0.005, dtype=torch.float64), atol=1e-9)


# ---- how long each term counts


def guided(name, steps=100):
    return sum(kind is StepKind.GUIDED for kind in step_kinds(preset(name), steps))


def test_the_papers_schedules():
    assert guided("paper") == guided("paper-l2") == guided("latent-paper") == 100
    assert guided("GradPaint-Fast") == 50 and guided("default") == 45
    y, mask = torch.zeros(1, 3, H, W), torch.ones(1, 1, H, W)
    for name, last in (("paper", 45), ("GradPaint-Fast", 45), ("latent-paper", 0)):
        plan = RunPlan(preset(name), y, mask, 100)
        weights = [[term.weight for term in plan.terms_at(i)] for i in range(100)]
        assert weights == [[1.0, 400.0 if i < last else 0.0] for i in range(100)], name


def test_no_preset_that_is_called_paper_costs_less_than_fast():
    for name in PRESETS:
        if "paper" in name:
            assert guided(name) > guided("GradPaint-Fast"), name


def test_the_papers_constants():
    for name in PRESETS:
        settings = preset(name)
        if name != "default":
            assert (settings.alpha, settings.lambda_mse) == (0.005, 1.0)
            assert settings.normalization == ("l2" if "l2" in name else "rms")
            assert settings.alignment.lambda_al == (0 if "latent" in name else 400) and settings.gradient == "model"
            assert (settings.alignment.softness == 0) or "latent" in name
    with pytest.raises(ValueError, match="preset is 'papr'.*one of: default, paper"):
        preset("papr")


def test_eq9_to_the_letter_moves_nothing_visible():
    """100 steps of length 0.005 over 196,608 values in [-1, 1]: at most this much a value, in RMS."""
    plan = RunPlan(preset("paper-l2"), torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8), 100)

    class Levels:
        def __getitem__(self, sigma):
            return 1.0, sigma

        def scale(self, sigma):
            return 1.0

    x = torch.randn(1, 3, 8, 8).requires_grad_()
    gradient = loss_gradient(x, x * 2, torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8), plan.terms_at(0))
    plan.take(0, gradient, (1.0, 1.0), torch.zeros(1, 1, 8, 8))
    moved = plan.displacement(Step(0, 1.0, 0.9), Levels())
    assert moved.norm().item() == pytest.approx(0.005, rel=1e-5)
    assert 100 * 0.005 / math.sqrt(196_608) < 0.0012 < 1 / 255  # far below one step of an 8-bit image
