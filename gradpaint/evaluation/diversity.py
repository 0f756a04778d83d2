"""How much the samples of one image differ: mean distance over all pairs, and the variance of their features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, islice

import torch
from torch import Tensor

from .metrics import lpips, masked_mse

PAIRS_AT_ONCE = 16


def pairs(count: int) -> tuple[Tensor, Tensor]:
    """Indices (first, second) of all pairs of `count` samples. ValueError for fewer than two."""
    _check_count(count)
    first, second = zip(*combinations(range(count), 2))
    return torch.tensor(first), torch.tensor(second)


def _check_count(count: int) -> None:
    if count < 2:
        raise ValueError(f"there are {count} samples of an image; its diversity needs at least two")


def pairwise_mse(samples: Tensor, mask: Tensor) -> float:
    """Mean over pairs of the mean squared difference in the hole.

    Args:
        samples: (K, C, H, W).
        mask: (1, 1, H, W).
    """
    return _mean_over_pairs(samples, lambda a, b: masked_mse(a, b, mask))


def pairwise_lpips(samples: Tensor, net: str = "squeeze") -> float:
    """Mean over pairs of the LPIPS distance between whole images, samples (K, 3, H, W) in [-1, 1]."""
    return _mean_over_pairs(samples, lambda a, b: lpips(a, b, net=net))


def _mean_over_pairs(samples: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> float:
    """A few pairs at a time, so that memory does not grow with their number."""
    _check_count(len(samples))
    total, count = 0.0, 0
    for group in _groups(combinations(range(len(samples)), 2), PAIRS_AT_ONCE):
        first, second = (list(indices) for indices in zip(*group))
        total += float(distance(samples[first], samples[second]).double().sum())
        count += len(group)
    return total / count


def _groups(items: Iterable[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


class RunningVariance:
    """Mean and variance of feature vectors that arrive in batches, in float64; memory does not grow with their number.

    Chan, Golub and LeVeque's update of Welford's algorithm: for a batch of n_b vectors with mean m_b and squared
    deviations S_b after n vectors with m and S, and d = m_b - m,

        m += d * n_b / (n + n_b),    S += S_b + d^2 * n * n_b / (n + n_b).
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """Features (B, D)."""
        batch = features.detach().flatten(1).double().cpu()
        mean = batch.mean(0)
        squares = (batch - mean).square().sum(0)
        if self._mean is None or self._squares is None:
            self._mean, self._squares = torch.zeros_like(mean), torch.zeros_like(mean)
        if self._mean.shape != mean.shape:
            raise ValueError(f"features have {len(mean)} numbers per image after {len(self._mean)}; all must agree")
        count, difference = self.count + len(batch), mean - self._mean
        self._squares = self._squares + squares + difference.square() * (self.count * len(batch) / count)
        self._mean = self._mean + difference * (len(batch) / count)
        self.count = count

    def variance(self) -> Tensor:
        """(D,), the unbiased variance of each feature. ValueError for fewer than two vectors."""
        _check_count(self.count)
        assert self._squares is not None  # there were vectors
        return self._squares / (self.count - 1)


@torch.no_grad()
def feature_variance(batches: Iterable[Tensor], network: Callable[[Tensor], Tensor]) -> float:
    """Mean over features of their variance over the samples of one image (the paper's table 8, where it is in 1e-3).

    Args:
        batches: samples (B, 3, H, W) in [-1, 1], one batch at a time.
        network: (B, 3, H, W) -> (B, D), e.g. `fid.load_features()`.
    """
    running = RunningVariance()
    for batch in batches:
        running.add(torch.as_tensor(network(batch.float())))
    return float(running.variance().mean())
