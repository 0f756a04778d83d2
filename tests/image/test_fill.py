"""Fills: what changes, what does not, and what each kind looks like."""

import pytest
import torch

from gradpaint.image.fill import FILLS, fill_hole


@pytest.fixture(scope="module")
def image():
    """A ramp with a fine pattern, 2 x (3, 80, 96)."""
    x = torch.linspace(0, 1, 96) * torch.ones(80, 1)
    pattern = 0.1 * ((torch.arange(96) // 2 + torch.arange(80)[:, None] // 2) % 2)
    return torch.stack([0.8 * x + pattern, 0.3 + 0 * x, 0.9 - 0.8 * x])[None].repeat(2, 1, 1, 1)


@pytest.fixture(scope="module")
def mask():
    mask = torch.zeros(1, 1, 80, 96)
    mask[..., 20:60, 30:70] = 1
    mask[..., 20:60, 70:74] = 0.5
    return mask


@pytest.mark.parametrize("kind", FILLS)
def test_only_the_hole_changes(image, mask, kind):
    out = fill_hole(image, mask, kind)
    hole = mask.expand(image.shape) == 1
    assert torch.equal(out[~hole], image[~hole]), "known and gray pixels are unchanged"
    assert out.shape == image.shape and 0 <= out.min() and out.max() <= 1 and not out.isnan().any()
    assert torch.equal(out, image) == (kind == "original")


@pytest.mark.parametrize("kind", [kind for kind in FILLS if kind not in ("original", "blur")])
def test_what_was_in_the_hole_does_not_matter(image, mask, kind):
    other = torch.where(mask == 1, 0.123, image)
    assert torch.equal(fill_hole(image, mask, kind), fill_hole(other, mask, kind))


@pytest.mark.parametrize("kind", FILLS)
def test_with_nothing_known_something_finite_comes_out(image, kind):
    out = fill_hole(image, torch.ones(1, 1, 80, 96), kind)
    assert out.isfinite().all() and 0 <= out.min() and out.max() <= 1
    if kind in ("fill", "smooth", "neutral", "edge"):
        assert (out == 0.5).all()


def test_fill_mirrors_the_pattern_at_the_border_and_is_smooth_inside(image):
    mask = torch.zeros(1, 1, 80, 96)
    mask[..., 40:, :] = 1
    out = fill_hole(image, mask, "fill")[:1]
    assert torch.allclose(out[..., 40, :], image[:1, :, 38], atol=0.02)  # the border is row 39
    rough = out.diff(dim=-1).abs().mean((0, 1, 3))
    assert rough[40] > 1.5 * rough[79]
    smooth = fill_hole(image, mask, "smooth")[:1]
    assert (smooth.diff(dim=-1).abs().mean((0, 1, 3))[50:] < rough[40] / 1.5).all()


def test_smooth_continues_a_ramp():
    ramp = (torch.linspace(0, 1, 64) * torch.ones(48, 1))[None, None]
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., 10:40, 12:50] = 1
    assert (fill_hole(ramp, mask, "smooth") - ramp).abs().max() < 4e-3


def test_blur_keeps_the_colours_and_loses_the_pattern(image, mask):
    out = fill_hole(image, mask, "blur")[0]
    inside = (slice(None), slice(30, 50), slice(45, 60))
    assert (out[inside] - image[0][inside]).mean((1, 2)).abs().max() < 0.03
    assert out[inside][0].diff(dim=0).abs().max() < 0.01 < image[0][inside][0].diff(dim=0).abs().max()


def test_noise_has_the_known_pixels_spread_and_is_the_same_each_time(image, mask):
    out = fill_hole(image, mask, "noise")
    inside, known = out[0, :, 20:60, 30:70].flatten(1), image[0].flatten(1)[:, mask.flatten() == 0]
    assert torch.allclose(inside.mean(1), known.mean(1), atol=0.05)
    assert torch.allclose(inside.std(1), known.std(1), atol=0.06)
    assert torch.equal(out, fill_hole(image, mask, "noise"))


def test_unknown_content_is_named(image, mask):
    with pytest.raises(ValueError, match="masked_content is 'telea', but must be one of fill, original"):
        fill_hole(image, mask, "telea")
