import pytest
import torch

from gradpaint.method.decoders import view
from gradpaint.method.gradient import loss_gradient
from gradpaint.method.losses import alignment_loss, edge_match_loss, masked_mse, masked_mse_eq5
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings
from gradpaint.method.terms import loss_terms, total_loss


def terms(lambda_al, **options):
    return loss_terms(GuidanceSettings(alignment=AlignmentSettings(lambda_al=lambda_al, **options)))


BOTH = terms(0.7, softness=0.5)


def problem(dtype=torch.float64, batch=2):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 6, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(batch, 3, 6, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64) / 5
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    mask[..., 2:5, 1:4] = 1
    denoise = lambda x: torch.tanh(torch.nn.functional.conv2d(x, weight.to(x), padding=1))
    return x.to(dtype), y.to(dtype), mask.to(dtype), denoise


def test_direction_and_rms_match_finite_differences():
    x, y, mask, denoise = problem()
    leaf = x.clone().requires_grad_()
    found = loss_gradient(leaf, denoise(leaf), y, mask, BOTH, sigma=3.0)
    numeric = torch.zeros_like(x)
    h = 1e-5
    for index in torch.cartesian_prod(*(torch.arange(n) for n in x.shape)).tolist():
        up, down = x.clone(), x.clone()
        up[tuple(index)] += h
        down[tuple(index)] -= h
        loss = lambda z: total_loss(denoise(z), y, mask, BOTH)["total"].sum()
        numeric[tuple(index)] = (loss(up) - loss(down)) / (2 * h)
    rms = numeric.flatten(1).square().mean(1).sqrt()
    assert torch.allclose(found.rms.double(), rms, rtol=1e-4)
    for i in range(len(x)):
        cosine = torch.nn.functional.cosine_similarity(found.gradient[i].flatten(), numeric[i].flatten(), dim=0)
        assert cosine > 1 - 1e-6  # eq. 5-8 run in float32 inside


def test_half_precision_does_not_underflow():
    # A tiny error on few known pixels: the loss's own gradient is below float16's range, its direction survives.
    x, _, _, denoise = problem(torch.float16, batch=1)
    full = x.float().clone().requires_grad_()
    mask = torch.ones(1, 1, 6, 6)
    mask[..., 0, 0] = 0
    y = denoise(x.float()) + 1e-4
    reference = loss_gradient(full, denoise(full), y, mask, terms(0.0), sigma=14.0)
    leaf = x.clone().requires_grad_()
    out = denoise(leaf)
    shifted = out.detach().float() + 1e-4
    found = loss_gradient(leaf, out, shifted, mask, terms(0.0), sigma=14.0)
    assert found.gradient.abs().max() > 1e-3
    cosine = torch.nn.functional.cosine_similarity(
        found.gradient.float().flatten(), reference.gradient.flatten(), dim=0
    )
    assert cosine > 0.999


def test_zero_loss_gives_zero_gradient():
    x, _, mask, denoise = problem(torch.float32)
    leaf = x.clone().requires_grad_()
    out = denoise(leaf)
    found = loss_gradient(leaf, out, out.detach(), mask, BOTH)
    assert found.gradient.abs().max() == 0 and found.rms.max() == 0 and found.losses["total"].max() == 0


def test_samples_are_independent():
    x, y, mask, denoise = problem()
    leaf = x.clone().requires_grad_()
    both = loss_gradient(leaf, denoise(leaf), y, mask, BOTH)
    one = x[:1].clone().requires_grad_()
    alone = loss_gradient(one, denoise(one), y[:1], mask, BOTH)
    assert torch.allclose(both.gradient[:1], alone.gradient) and torch.allclose(both.rms[:1], alone.rms)


def decoder(z):
    """Twice the size, three channels of another meaning; smooth."""
    weight = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 3
    up = torch.nn.functional.interpolate(torch.tanh(z), scale_factor=2)
    return torch.nn.functional.conv2d(up, weight.to(z), padding=1)


@pytest.mark.parametrize("name, weight", [("edge-match", 3.0), ("alignment", 100.0)])
def test_through_a_decoder_the_gradient_is_that_of_the_whole(name, weight):
    x, y, mask, denoise = problem()
    seen = view(decoder, y, mask, border_width=2)
    loss_sum = terms(weight, softness=0.5, border_width=2, loss=name)
    leaf = x.clone().requires_grad_()
    found = loss_gradient(leaf, denoise(leaf), y, mask, loss_sum, sigma=3.0, view=seen)

    def loss(z):
        x0_hat = denoise(z)
        big = mask.repeat_interleave(2, -1).repeat_interleave(2, -2)
        images = decoder(x0_hat), decoder(y), big
        if name == "alignment":
            return masked_mse_eq5(x0_hat, y, mask) + weight * alignment_loss(*images, softness=0.5)
        return masked_mse(x0_hat, y, mask) + weight * edge_match_loss(*images, border_width=2, softness=0.5)

    whole = x.clone().requires_grad_()
    value = loss(whole)
    (expected,) = torch.autograd.grad(value.sum(), whole)
    assert torch.allclose(found.losses["total"].double(), value, rtol=1e-5)
    assert torch.allclose(found.losses["total"], found.losses["mse"] + weight * found.losses["alignment"])
    assert torch.allclose(found.rms.double(), expected.flatten(1).square().mean(1).sqrt(), rtol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(found.gradient.flatten(1), expected.flatten(1))
    assert (cosine > 1 - 1e-6).all()
    # Its share is no rounding error.
    plain = x.clone().requires_grad_()
    other = loss_gradient(plain, denoise(plain), y, mask, terms(0.0), sigma=3.0)
    assert (torch.nn.functional.cosine_similarity(found.gradient.flatten(1), other.gradient.flatten(1)) < 0.99).all()


def test_a_half_precision_decoder_loses_no_small_gradient():
    # On a large image the loss's gradient in a pixel is below float16's range.
    generator = torch.Generator().manual_seed(0)
    y, x = (torch.randn(1, 3, 48, 48, generator=generator) for _ in range(2))
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 16:32, 16:32] = 1
    loss_sum = terms(1e-4, softness=2.0)

    def gradient(decode):
        # Everything is known exactly but for the border: all of the gradient is the decoder's.
        leaf = torch.where(mask > 0, x, y).requires_grad_()
        seen = view(decode, y / 1000, mask)
        return loss_gradient(leaf, leaf * 1.0, leaf.detach(), mask, loss_sum, view=seen).gradient

    full = gradient(lambda z: z / 1000)
    half = gradient(lambda z: z.half() / 1000)
    assert full.any() and torch.nn.functional.cosine_similarity(half.flatten(), full.flatten(), dim=0) > 0.99
