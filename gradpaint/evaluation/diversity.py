"""How different the samples of one image are (Table 8 of the paper): the mean distance over all pairs of samples."""

from itertools import combinations

import torch

from .metrics import lpips, masked_mse


def pairs(count):
    """Indices (first, second) of all pairs of `count` samples. ValueError for fewer than two."""
    if count < 2:
        raise ValueError(f"there are {count} samples of an image; its diversity needs at least two")
    first, second = zip(*combinations(range(count), 2))
    return torch.tensor(first), torch.tensor(second)


def pairwise_mse(samples, mask):
    """Mean over pairs of the mean squared difference in the hole. samples (K, C, H, W), mask (1, 1, H, W) -> float."""
    first, second = pairs(len(samples))
    return float(masked_mse(samples[first], samples[second], mask).mean())


def pairwise_lpips(samples, net="squeeze"):
    """Mean over pairs of the LPIPS distance of whole images. samples (K, 3, H, W) in [-1, 1] -> float."""
    first, second = pairs(len(samples))
    return float(lpips(samples[first], samples[second], net=net).mean())
