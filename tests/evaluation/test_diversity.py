"""Distances over all pairs of samples."""

import pytest
import torch

from gradpaint.evaluation.diversity import pairs, pairwise_mse
from gradpaint.masks import make_mask


def test_pairs():
    first, second = pairs(3)
    assert list(zip(first.tolist(), second.tolist())) == [(0, 1), (0, 2), (1, 2)]
    with pytest.raises(ValueError, match="there are 1 samples"):
        pairs(1)


def test_pairwise_mse_counts_the_hole_alone():
    mask = make_mask("half", 8, 8)
    values = torch.tensor([0.0, 0.1, 0.4]).view(3, 1, 1, 1)
    samples = values * mask + torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * (1 - mask)
    assert pairwise_mse(samples, mask) == pytest.approx((0.01 + 0.16 + 0.09) / 3, rel=1e-5)
    assert pairwise_mse(samples[:1].repeat(2, 1, 1, 1), mask) == 0
