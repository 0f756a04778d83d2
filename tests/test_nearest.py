"""Against the distance to every pixel, one by one."""
import math

import pytest
import torch

from gradpaint.nearest import distance_to, mirrored, nearest_known


def brute_force(known: torch.Tensor) -> torch.Tensor:
    where = known.nonzero().float()
    y, x = torch.meshgrid(*(torch.arange(float(side)) for side in known.shape), indexing="ij")
    return ((y[..., None] - where[:, 0]) ** 2 + (x[..., None] - where[:, 1]) ** 2).amin(-1).sqrt()


CASES = [((23, 31), 0.03), ((40, 17), 0.005), ((9, 9), 0.3), ((1, 12), 0.1)]


@pytest.mark.parametrize("shape, share", CASES)
def test_nearest_is_nearest(shape, share):
    known = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
    known[0, 3] = True
    row, column, distance = nearest_known(known)
    y, x = torch.meshgrid(*(torch.arange(side) for side in shape), indexing="ij")
    assert known[row, column].all()
    assert torch.allclose(distance, brute_force(known))
    assert torch.allclose(((y - row) ** 2 + (x - column) ** 2).float().sqrt(), distance)


@pytest.mark.parametrize("limit", [0, 1, 6])
def test_limits(limit):
    known = torch.rand(33, 29, generator=torch.Generator().manual_seed(0)) < 0.01
    true, got = brute_force(known), distance_to(known[None, None], limit)[0, 0]
    assert torch.equal(got, true.masked_fill(true > limit, math.inf))
    near = true <= limit
    assert torch.allclose(nearest_known(known, limit)[2][near], true[near])


def test_nothing_there_is_infinitely_far():
    assert distance_to(torch.zeros(1, 1, 4, 5, dtype=torch.bool), 9).isinf().all()


def test_mirrored_at_a_straight_border():
    known = torch.ones(4, 12, dtype=torch.bool)
    known[:, 5:] = False
    row, column, distance = mirrored(known)
    assert column[0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 4, 4, 4]  # beyond the picture: the border itself
    assert row[2].tolist() == [2] * 12 and distance[0].tolist() == [0] * 5 + [1, 2, 3, 4, 5, 6, 7]


def test_mirror_images_are_known():
    known = torch.rand(30, 30, generator=torch.Generator().manual_seed(2)) < 0.4
    row, column, _ = mirrored(known)
    assert known[row, column].all()
