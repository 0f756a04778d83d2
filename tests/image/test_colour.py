"""Color matching undoes known shifts."""

import pytest
import torch

from gradpaint.image.colour import COLOUR_MATCHES, match_colour


@pytest.fixture(scope="module")
def scene():
    """An image with texture (3, 192, 256), known everywhere except in a box."""
    generator = torch.Generator().manual_seed(0)
    picture = 0.35 + 0.3 * torch.rand(3, 192, 256, generator=generator)
    known = torch.ones(192, 256, dtype=torch.bool)
    known[48:144, 80:200] = False
    return picture, known


def remaining_error(result, scene, kind, strength=1.0):
    """Return the largest error in the hole after matching, averaged over 8 x 8 pixels of a channel."""
    picture, known = scene
    out = match_colour(result, picture, known, kind, strength)
    difference = torch.where(known, 0.0, out - picture)
    return float(torch.nn.functional.avg_pool2d(difference, 8).abs().max())


CONSTANT = torch.tensor([0.05, -0.04, 0.03])[:, None, None]


@pytest.mark.parametrize("kind", ["smooth", "mean", "mean and contrast"])
def test_a_constant_shift(scene, kind):
    assert (
        remaining_error(scene[0] + CONSTANT, scene, kind) < 1e-3
        and remaining_error(scene[0] + CONSTANT, scene, "off") > 0.045
    )
    assert abs(remaining_error(scene[0] + CONSTANT, scene, kind, 0.5) - 0.025) < 1e-3


def test_a_change_of_contrast(scene):
    picture, known = scene
    result = (picture - 0.5) * 0.8 + 0.5
    worst = {
        kind: float((match_colour(result, picture, known, kind) - picture)[:, ~known].abs().max())
        for kind in ("mean", "mean and contrast")
    }
    assert worst["mean and contrast"] < 2e-3 and worst["mean"] > 0.02


def test_a_shift_that_varies_over_the_picture(scene):
    y, x = torch.linspace(-1, 1, 192)[:, None], torch.linspace(-1, 1, 256)
    result = scene[0] + CONSTANT * x + 0.05 * y
    assert remaining_error(result, scene, "smooth") < 0.01 and remaining_error(result, scene, "mean") > 0.04


def test_the_holes_content_is_not_compared(scene):
    picture, known = scene
    result = torch.where(known, picture, 0.9)
    for kind in COLOUR_MATCHES:
        assert torch.allclose(match_colour(result, picture, known, kind), result, atol=1e-5)


def test_smooth_does_not_follow_single_spots(scene):
    """Detail that the autoencoder lost is not a color shift: a single deviating cell is hardly corrected."""
    picture, known = scene
    result = picture.clone()
    result[:, 128:144, 208:224] += 0.2
    change = match_colour(result, picture, known, "smooth") - result
    assert 0.02 < -change.min() < 0.08 and change[:, :64].abs().max() < 0.01


def test_flat_surroundings_and_nothing_known(scene):
    flat, known = torch.full((3, 32, 32), 0.4), torch.zeros(32, 32, dtype=torch.bool)
    assert match_colour(flat, flat + 0.1, known, "smooth") is flat
    known[:4] = True
    for kind in ("smooth", "mean", "mean and contrast"):
        assert torch.allclose(match_colour(flat, flat + 0.1, known, kind), flat + 0.1, atol=1e-5)


def test_contrast_is_not_taken_from_noise_on_a_flat_surrounding(scene):
    """A product on white: noise that the autoencoder adds to the white must not change the product's contrast."""
    _, known = scene
    noise = 0.01 * torch.randn(3, 192, 256, generator=torch.Generator().manual_seed(1))
    result = torch.where(known, 0.95 + noise, scene[0])
    for original in (torch.full_like(result, 0.95), 0.95 + noise.flip(-1) / 3):
        change = match_colour(result, original, known, "mean and contrast") - result
        assert change[:, ~known].abs().max() < 5e-3


@pytest.mark.parametrize("kind", ["smooth", "mean", "mean and contrast"])
def test_nonfinite_pixels_do_not_spread(scene, kind):
    picture, known = scene
    result, original = picture + CONSTANT, picture.clone()
    result[:, 100, 100] = original[:, 5, 5] = float("nan")
    result[0, 7, 200] = float("inf")
    out = match_colour(result, original, known, kind)
    fine = result.isfinite().all(0)
    assert (out - picture)[:, fine].abs().max() < 2e-3 and not fine.all()


def test_a_single_known_pixel_is_enough(scene):
    picture, known = scene[0][:, :30, :30], torch.zeros(30, 30, dtype=torch.bool)
    known[5, 7] = True
    assert torch.allclose(match_colour(picture + CONSTANT, picture, known, "smooth"), picture, atol=1e-5)


def test_unknown_kinds_are_named(scene):
    with pytest.raises(ValueError, match="colour_match is 'hue', but must be one of smooth, mean"):
        match_colour(*scene[:1], *scene, "hue")
