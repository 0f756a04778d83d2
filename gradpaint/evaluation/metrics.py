"""Scores of inpainting results, one value per sample, and statistics over samples.

Images are (B, C, H, W) in [-1, 1]; masks are (B or 1, 1, H, W), 1 in the hole and 0 where the image is known.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DATA_RANGE = 2.0  # of images in [-1, 1]
# What torchvision names the ImageNet weights that LPIPS builds on, in TORCH_HOME/hub/checkpoints.
WEIGHTS = {"squeeze": "squeezenet1_1-*.pth", "alex": "alexnet-*.pth", "vgg": "vgg16-*.pth"}
NETWORK_NAMES = {"squeeze": "SqueezeNet", "alex": "AlexNet", "vgg": "VGG16"}


def _check(a: Tensor, b: Tensor, mask: Tensor) -> None:
    if a.ndim != 4 or a.shape != b.shape:
        raise ValueError(f"images have shapes {tuple(a.shape)} and {tuple(b.shape)}; both must be one (B, C, H, W)")
    _check_mask(a, mask)


def _check_mask(image: Tensor, mask: Tensor) -> None:
    allowed = (len(image), 1)
    if mask.ndim != 4 or mask.shape[1] != 1 or mask.shape[0] not in allowed or mask.shape[2:] != image.shape[2:]:
        size = f"{image.shape[2]}, {image.shape[3]}"
        raise ValueError(f"mask has shape {tuple(mask.shape)}; it must be ({len(image)} or 1, 1, {size})")


def masked_mse(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the hole: sum of mask*(a-b)^2 over C * sum of mask.

    Args:
        a, b: (B, C, H, W).
        mask: (B or 1, 1, H, W); gray values weight.

    Returns:
        (B,).

    Raises:
        ValueError: a mask has no hole.
    """
    _check(a, b, mask)
    weight = mask.to(a).expand(len(a), 1, *a.shape[2:])
    total = weight.sum(dim=(1, 2, 3))
    if not bool((total > 0).all()):
        raise ValueError(f"mask of sample {int((total <= 0).nonzero()[0])} has no hole; the error over it is undefined")
    return (weight * (a - b) ** 2).sum(dim=(1, 2, 3)) / (total * a.shape[1])


def masked_psnr(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over the hole in dB, (B,), for a data range of 2; inf where the hole is identical."""
    return 10 * torch.log10(DATA_RANGE**2 / masked_mse(a, b, mask))


def known_error(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Largest absolute difference over the known pixels (mask 0), (B,); 0 where nothing is known."""
    _check(a, b, mask)
    known = mask.to(a) == 0
    return ((a - b).abs() * known).amax(dim=(1, 2, 3))


def seam_energy(image: Tensor, mask: Tensor) -> Tensor:
    """Squared normal gradient across the mask's border, (B,).

    Summed over all horizontally or vertically adjacent pairs of pixels with one in the hole (mask > 1/2) and one
    outside it: their squared difference, averaged over channels.
    """
    if image.ndim != 4:
        raise ValueError(f"image has shape {tuple(image.shape)}; it must be (B, C, H, W)")
    _check_mask(image, mask)
    hole = (mask > 0.5).expand(len(image), 1, *image.shape[2:])
    energy = torch.zeros(len(image), dtype=image.dtype, device=image.device)
    for axis in (-1, -2):
        border = hole.int().diff(dim=axis) != 0
        energy += (image.diff(dim=axis).square().mean(1, keepdim=True) * border).sum(dim=(1, 2, 3))
    return energy


def lpips(a: Tensor, b: Tensor, net: str = "squeeze") -> Tensor:
    """LPIPS distance (Zhang et al., 2018) between whole images, (B,); needs torchmetrics and torchvision.

    Meant for composited images: only the hole differs, and the known pixels are its context, as in the paper.

    Args:
        a, b: (B, 3, H, W); values outside [-1, 1] are clipped.
        net: "squeeze", "alex" or "vgg". torchvision downloads its ImageNet weights on first use (squeeze: 5 MB).

    Raises:
        ImportError: a package is missing.
        RuntimeError: the weights cannot be loaded.
    """
    _check(a, b, a[:1, :1])
    network = _lpips_network(net, a.device)
    with torch.no_grad():
        values = network(a.float().clamp(-1, 1), b.float().clamp(-1, 1))
    network.reset()
    return values.reshape(len(a)).to(a.dtype)


@functools.lru_cache(maxsize=2)
def _lpips_network(net: str, device: torch.device) -> Any:
    """Loaded once; a failure is not remembered."""
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ImportError as error:
        message = f"LPIPS needs torchmetrics and torchvision: pip install 'gradpaint[lpips]' ({error})"
        raise ImportError(message) from error
    try:
        return LearnedPerceptualImagePatchSimilarity(net_type=net, reduction="none").to(device)
    except (OSError, ModuleNotFoundError) as error:
        raise RuntimeError(
            f"LPIPS could not load the {net} network: {error}. Its weights belong in TORCH_HOME/hub/checkpoints"
        ) from error


def missing_lpips_weights(net: str) -> str | None:
    """Why LPIPS with this network cannot run without a download, as a clause; None if its weights are on disk."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if any(folder.glob(WEIGHTS[net])):
        return None
    return f"weights of {NETWORK_NAMES[net]} LPIPS not found in TORCH_HOME ({folder}/{WEIGHTS[net]})"


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error; z is the number in units of that error."""

    value: float
    error: float

    @property
    def z(self) -> float:
        if self.error > 0:
            return self.value / self.error
        return math.copysign(math.inf, self.value) if self.value else 0.0


def mean_estimate(values: Tensor | Sequence[float]) -> Estimate:
    """Mean of (N,) values and its standard error, s / sqrt(N) with the unbiased s; NaN error for N = 1."""
    values = torch.as_tensor(values).double()
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values have shape {tuple(values.shape)}; they must be (N,) with N >= 1")
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(values.mean().item(), error)


def paired_difference(a: Tensor, b: Tensor) -> Estimate:
    """Mean of a - b over samples with its standard error; both methods saw the same images, masks and noise."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    if a.shape != b.shape:
        raise ValueError(f"values have shapes {tuple(a.shape)} and {tuple(b.shape)}; pairs need the same number")
    return mean_estimate(a - b)


def jackknife(statistic: Callable[..., Tensor], *arrays: Tensor) -> Estimate:
    """A statistic of the arrays' sums with its delete-one jackknife standard error.

    Args:
        statistic: takes one tensor of sums per array and works elementwise; called once with the full sums and once
            with all N sums that leave one sample out.
        arrays: (N,) each, N >= 2.
    """
    arrays = tuple(torch.as_tensor(array).double() for array in arrays)
    count = len(arrays[0])
    if count < 2 or any(array.shape != (count,) for array in arrays):
        raise ValueError(f"arrays have shapes {[tuple(array.shape) for array in arrays]}; all must be (N,) with N >= 2")
    totals = [array.sum() for array in arrays]
    left_out = statistic(*(total - array for total, array in zip(totals, arrays)))
    spread = ((left_out - left_out.mean()) ** 2).sum().item() * (count - 1) / count
    return Estimate(float(statistic(*totals)), math.sqrt(spread))


def pooled_ratio(energy: Tensor, truth: Tensor) -> float:
    """Sum of the results' seam energies over that of the true images: 1 is ideal, above 1 is a visible seam.

    Pooled, because one image whose true border is flat would make its own ratio explode.
    """
    return float(energy.sum()) / _check_truth(truth)


def _check_truth(truth: Tensor) -> float:
    """Sum of the true images' seam energies; ValueError where it is not positive."""
    total = float(torch.as_tensor(truth).sum())
    if total <= 0:
        raise ValueError(f"the true images' seam energies sum to {total}; the ratio is undefined")
    return total


def seam_ratio(energy: Tensor, truth: Tensor) -> Estimate:
    """`pooled_ratio` of (N,) energies with its jackknife standard error."""
    _check_truth(truth)
    return jackknife(torch.div, energy, truth)


def seam_improvement(energy: Tensor, other: Tensor, truth: Tensor) -> Estimate:
    """|log seam ratio| of `energy` minus that of `other`, with its jackknife standard error; negative is better.

    The logarithm counts a smoothed border (ratio below 1) like a seam (above 1).
    """
    _check_truth(truth)
    return jackknife(lambda a, b, t: (a / t).log().abs() - (b / t).log().abs(), energy, other, truth)
