"""How much samples differ: distances over all pairs, and the variance of their features."""

import pytest
import torch

from gradpaint.evaluation import diversity
from gradpaint.evaluation.diversity import RunningVariance, feature_variance, pairs, pairwise_lpips, pairwise_mse
from gradpaint.evaluation.metrics import masked_mse
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
    with pytest.raises(ValueError, match="there are 1 samples"):
        pairwise_mse(samples[:1], mask)


def test_pairs_are_made_a_few_at_a_time(monkeypatch):
    sizes = []

    def distance(a, b, net):
        sizes.append((len(a), net))
        return (a - b).abs().mean((1, 2, 3))

    monkeypatch.setattr(diversity, "lpips", distance)
    samples = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean = pairwise_lpips(samples, "alex")
    first, second = pairs(12)
    assert mean == pytest.approx(float((samples[first] - samples[second]).abs().mean()), rel=1e-6)
    assert sum(size for size, _ in sizes) == 66 and max(sizes) == (diversity.PAIRS_AT_ONCE, "alex")
    mask = make_mask("half", 8, 8)
    every = masked_mse(samples[first], samples[second], mask).mean()
    assert pairwise_mse(samples, mask) == pytest.approx(float(every), rel=1e-6)


def test_running_variance_is_the_variance():
    features = torch.randn(37, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 1e4
    running = RunningVariance()
    for batch in features.split([1, 20, 9, 7]):
        running.add(batch)
    assert torch.allclose(running.variance(), features.var(0), rtol=1e-10) and running.count == 37
    with pytest.raises(ValueError, match="features have 4 numbers per image after 5"):
        running.add(torch.zeros(2, 4))
    single = RunningVariance()
    single.add(features[:1])
    with pytest.raises(ValueError, match="there are 1 samples"):
        single.variance()


def test_feature_variance_sees_one_batch_at_a_time():
    """A generator that keeps nothing, and a network that counts: no more than one batch is alive."""
    generator = torch.Generator().manual_seed(2)
    made, alive = [], []

    def batches():
        for _ in range(50):
            batch = torch.rand(2, 3, 4, 4, generator=generator)
            made.append(batch.mean((2, 3)))
            yield batch

    def network(images):
        alive.append(len(images))
        return images.mean((2, 3))

    variance = feature_variance(batches(), network)
    assert variance == pytest.approx(float(torch.cat(made).double().var(0).mean()), rel=1e-6)
    assert alive == [2] * 50
