"""The smooth fill solves Laplace's equation: ramps continue, and extremes are on the border."""

import pytest
import torch

from gradpaint.image.harmonic import harmonic_fill, pull_push
from gradpaint.masks import make_masks


def ramps(height: int, width: int) -> torch.Tensor:
    """Return an image (1, 3, H, W), linear in both directions, within [0, 1]."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    return torch.stack([0.5 * y + 0.4 * x, 1 - y + 0 * x, 0.2 + 0.7 * x + 0 * y])[None]


def inner_hole(kind: str, height: int, width: int) -> torch.Tensor:
    hole = make_masks(kind, height, width, [3]) > 0.5
    hole[..., [0, -1], :] = False
    hole[..., [0, -1]] = False
    return hole


@pytest.mark.parametrize("kind", ["thin", "thick", "box", "random_pixels"])
@pytest.mark.parametrize("size", [(64, 64), (97, 201), (256, 130), (600, 533)])
def test_ramps_continue(kind, size):
    image, hole = ramps(*size), inner_hole(kind, *size)
    out = harmonic_fill(image.masked_fill(hole, 0.0), hole)
    assert hole.any() and (out - image).abs().max() < 1e-3
    assert torch.equal(out.masked_fill(hole, 0.0), image.masked_fill(hole, 0.0))


def test_each_pixel_is_the_mean_of_its_neighbours():
    generator = torch.Generator().manual_seed(0)
    image, hole = torch.rand(1, 1, 40, 52, generator=generator), inner_hole("box", 40, 52)
    out = harmonic_fill(image, hole, tolerance=1e-6)[0, 0]
    mean = (out[2:, 1:-1] + out[:-2, 1:-1] + out[1:-1, 2:] + out[1:-1, :-2]) / 4
    inside = hole[0, 0, 1:-1, 1:-1]
    assert (out[1:-1, 1:-1] - mean)[inside].abs().max() < 1e-5
    known = image[0, 0][~hole[0, 0]]
    assert known.min() <= out[hole[0, 0]].min() and out[hole[0, 0]].max() <= known.max()


def test_at_the_images_border_nothing_pulls():
    """A hole that touches the edge is determined by its other sides; in one dimension, it is constant."""
    image = torch.zeros(1, 1, 8, 30)
    image[..., :10] = 0.7
    hole = torch.zeros(1, 1, 8, 30, dtype=torch.bool)
    hole[..., 10:] = True
    assert torch.allclose(harmonic_fill(image, hole, tolerance=1e-5), torch.tensor(0.7), atol=1e-4)


def test_images_of_a_batch_have_their_own_holes():
    image = torch.cat([ramps(32, 32), ramps(32, 32).flip(-1)])
    hole = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    hole[1, :, 8:20, 5:25] = True
    out = harmonic_fill(image.masked_fill(hole, 9.0), hole)
    assert torch.equal(out[0], image[0]) and (out - image).abs().max() < 1e-3


def test_all_hole_is_the_mean():
    image = ramps(6, 6)
    assert torch.allclose(
        harmonic_fill(image, torch.ones(1, 1, 6, 6, dtype=torch.bool)),
        image.mean((2, 3), keepdim=True).expand_as(image),
    )


def test_pull_push_keeps_the_known_and_stays_between():
    generator = torch.Generator().manual_seed(1)
    values, weight = torch.rand(2, 21, 13, generator=generator), torch.zeros(21, 13)
    weight[3, 4] = weight[15, 11] = 1
    out = pull_push(values * weight, weight)
    assert torch.allclose(out[:, 3, 4], values[:, 3, 4]) and torch.allclose(out[:, 15, 11], values[:, 15, 11])
    low, high = values[:, [3, 15], [4, 11]].amin(1), values[:, [3, 15], [4, 11]].amax(1)
    assert ((out >= low[:, None, None] - 1e-6) & (out <= high[:, None, None] + 1e-6)).all()
