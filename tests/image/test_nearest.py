"""Nearest pixels, compared with brute force."""

import math

import pytest
import torch

from gradpaint.image.nearest import distance_to, mirrored, nearest_known


def brute_force(known: torch.Tensor) -> torch.Tensor:
    where = known.nonzero().float()
    y, x = torch.meshgrid(*(torch.arange(float(side)) for side in known.shape), indexing="ij")
    return ((y[..., None] - where[:, 0]) ** 2 + (x[..., None] - where[:, 1]) ** 2).amin(-1).sqrt()


CASES = [((23, 31), 0.03), ((40, 17), 0.005), ((9, 9), 0.3), ((1, 12), 0.1)]


def gap(here, there, width):
    return ((here // width - there // width) ** 2 + (here % width - there % width) ** 2).float().sqrt()


@pytest.mark.parametrize("shape, share", CASES)
def test_nearest_is_nearest(shape, share):
    known = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
    known[0, 3] = True
    here, there, distance = nearest_known(known)
    assert torch.equal(here, (~known).flatten().nonzero()[:, 0]) and known.flatten()[there].all()
    assert torch.allclose(distance, brute_force(known)[~known])
    assert torch.allclose(gap(here, there, shape[1]), distance)


@pytest.mark.parametrize("limit", [0, 1, 6])
def test_limits(limit):
    known = torch.rand(33, 29, generator=torch.Generator().manual_seed(0)) < 0.01
    true, got = brute_force(known), distance_to(known[None, None], limit)[0, 0]
    assert torch.equal(got, true.masked_fill(true > limit, math.inf))
    here, there, distance = nearest_known(known, limit)
    assert torch.equal(here, ((true <= limit) & ~known).flatten().nonzero()[:, 0])
    assert torch.allclose(true.flatten()[here], distance) and torch.allclose(gap(here, there, 29), distance)


@pytest.mark.parametrize("shape, limit", [((300, 900), 700), ((3000, 40), 80)])
def test_large_images_in_blocks(shape, limit):
    known = torch.zeros(shape, dtype=torch.bool)
    known[[0, 5, -1], [0, 7, -3]] = True
    true = brute_force(known)
    here, there, distance = nearest_known(known)  # some distances need more than 32 bits
    assert torch.allclose(distance, true[~known]) and torch.allclose(gap(here, there, shape[1]), distance)
    assert torch.equal(distance_to(known[None, None], limit)[0, 0], true.masked_fill(true > limit, math.inf))


def test_an_empty_region_is_infinitely_far():
    assert distance_to(torch.zeros(1, 1, 4, 5, dtype=torch.bool), 9).isinf().all()


def test_mirrored_at_a_straight_border():
    known = torch.ones(4, 12, dtype=torch.bool)
    known[:, 5:] = False
    here, there, distance = mirrored(known)
    assert (there % 12)[:7].tolist() == [3, 2, 1, 0, 4, 4, 4]  # outside the image: the border itself
    assert torch.equal(there // 12, here // 12) and distance[-7:].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert len(mirrored(torch.ones(3, 3, dtype=torch.bool))[0]) == 0


def test_mirror_images_are_known():
    known = torch.rand(30, 30, generator=torch.Generator().manual_seed(2)) < 0.4
    here, there, _ = mirrored(known)
    assert len(here) == (~known).sum() and known.flatten()[there].all()
