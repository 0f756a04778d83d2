"""Views of latents: shapes, masks at the image's resolution, the linear projection, errors."""

import pytest
import torch
from torch.nn import functional as F

from gradpaint.method.decoders import LinearRGB, enlarged_mask, fit_linear_rgb, view
from gradpaint.method.losses import alignment_loss, border_band, edge_match_loss
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings
from gradpaint.method.terms import loss_terms


def tiny_decoder(channels=4, ratio=2, dtype=torch.float64):
    """A convolutional stand-in: upsampling and two convolutions."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(6, channels, 3, 3, generator=generator, dtype=dtype) / 6
    last = torch.randn(3, 6, 3, 3, generator=generator, dtype=dtype) / 6

    def decode(z):
        up = F.interpolate(torch.tanh(F.conv2d(z, first.to(z), padding=1)), scale_factor=ratio)
        return F.conv2d(up, last.to(z), padding=1)

    return decode


def latents(batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    draw = lambda: torch.randn(batch, 4, 5, 5, generator=generator, dtype=dtype)
    mask = torch.zeros(1, 1, 5, 5, dtype=dtype)
    mask[..., 1:4, 2:4] = 1
    return draw(), draw(), mask


def test_the_border_is_the_one_of_the_image_s_resolution():
    _, y, mask = latents()
    seen = view(tiny_decoder(ratio=8), y, mask, border_width=2)
    assert seen.y.shape == (2, 3, 40, 40) and seen.mask.shape == (1, 1, 40, 40)
    assert torch.equal(seen.mask[0, 0, 8:32, 16:32], torch.ones(24, 16)) and seen.mask.sum() == 24 * 16
    assert torch.equal(seen.border, border_band(seen.mask, 2))
    assert seen.border.sum() == 28 * 20 - 20 * 12  # two pixels on each side, not two cells


def test_a_finer_mask_replaces_the_latent_s():
    _, y, mask = latents()
    fine = torch.zeros(2, 1, 10, 10)
    fine[0, 0, 3, 3] = fine[1, 0, 7, 7] = 0.25
    seen = view(tiny_decoder(), y, mask, fine_mask=fine)
    assert torch.equal(seen.mask, fine) and seen.border.max() == 0.25
    assert torch.equal(seen.sample(1).mask, fine[1:]) and seen.sample(0).y.shape == (1, 3, 10, 10)


def test_enlarged_mask_repeats_cells_and_keeps_grey():
    mask = torch.tensor([[0.0, 0.5], [1.0, 0.25]]).view(1, 1, 1, 2, 2).repeat(1, 2, 3, 1, 1)
    mask[:, 1] = 0
    out = enlarged_mask(mask, (4, 6))
    assert out.shape == (1, 1, 3, 4, 6)
    assert torch.equal(
        out[0, 0, 2], torch.tensor([[0.0, 0.5], [1.0, 0.25]]).repeat_interleave(2, 0).repeat_interleave(3, 1)
    )


@pytest.mark.parametrize("name", ["edge-match", "alignment"])
def test_the_loss_at_the_border_of_decoded_images_passes_gradcheck(name):
    x0_hat, y, mask = latents()
    decode = tiny_decoder()
    _, term = loss_terms(GuidanceSettings(alignment=AlignmentSettings(softness=0.4, border_width=1, loss=name)))
    seen = view(decode, y, mask)
    big = mask.repeat_interleave(2, -1).repeat_interleave(2, -2)
    images = decode(x0_hat), decode(y).float().double(), big
    expected = alignment_loss(*images, softness=0.4) if name == "alignment" else edge_match_loss(*images, softness=0.4)
    loss = lambda z: term.function(decode(z), seen.y, seen.mask, seen.border)
    assert torch.allclose(loss(x0_hat), expected, rtol=1e-6) and (expected > 1e-3).all()
    assert torch.autograd.gradcheck(loss, x0_hat.requires_grad_())


def test_linear_rgb_is_a_product_per_cell():
    factors, bias = torch.randn(4, 3), torch.randn(3)
    z = torch.randn(2, 4, 3, 5, 6)  # a video's frames are projected each
    out = LinearRGB(factors, bias)(z)
    assert out.shape == (2, 3, 3, 5, 6)
    assert torch.allclose(out[1, :, 2, 4, 5], z[1, :, 2, 4, 5] @ factors + bias, atol=1e-5)
    halves = LinearRGB(factors, None, lambda t: t.reshape(2, 4, 3, 5, 2, 3)[..., 0, :])(z)
    assert torch.allclose(halves, LinearRGB(factors)(z[..., :3]), atol=1e-5)


def test_fit_recovers_a_projection():
    factors, bias = torch.randn(4, 3), torch.randn(3)
    z = torch.randn(3, 4, 6, 6)
    images = F.interpolate(LinearRGB(factors, bias)(z), scale_factor=8)
    found = fit_linear_rgb(z, images)
    assert torch.allclose(found.factors, factors, atol=1e-4) and torch.allclose(found.bias, bias, atol=1e-4)


def test_errors_name_the_shapes():
    _, y, mask = latents(dtype=torch.float32)
    with pytest.raises(ValueError, match=r"\(2, 4, 5, 5\) into \(2, 4, 5, 5\)"):
        view(lambda z: z, y, mask)
    with pytest.raises(ValueError, match=r"mask has shape \(1, 1, 9, 9\).*\(2, 3, 10, 10\)"):
        view(tiny_decoder(), y, mask, fine_mask=torch.zeros(1, 1, 9, 9))
    with pytest.raises(ValueError, match="4 channels, the projection to colors is for 16"):
        LinearRGB(torch.zeros(16, 3))(y)
    with pytest.raises(ValueError, match=r"factors has shape \(3, 4\)"):
        LinearRGB(torch.zeros(3, 4))
