"""Frechet inception distance (Heusel et al., 2017) from any feature network, in float64, with a jackknife error.

    FID = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2))

With centered features A (n_a, D) and B (n_b, D), S_a S_b has the same nonzero eigenvalues as M M^T for
M = A B^T / sqrt((n_a - 1)(n_b - 1)), so the last trace is the sum of M's singular values. No matrix is squared or
regularized, and with fewer images than features the matrices stay small. FID is biased upward for few images: compare
methods only at the same number.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .metrics import Estimate

GROUPS = 20  # of the jackknife
INCEPTION = "inception"
INCEPTION_WEIGHTS = "weights-inception-*.pth"  # torch-fidelity's, in TORCH_HOME/hub/checkpoints
Features = Callable[[Tensor], Tensor]
Moments = tuple[Tensor, Tensor]  # mean (D,) and a matrix C with C^T C = covariance


def _moments(features: Tensor) -> Moments:
    """Mean (D,) and C of at most D rows."""
    features = torch.as_tensor(features).double()
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features have shape {tuple(features.shape)}; they must be (N, D) with N >= 2")
    mean = features.mean(0)
    root = (features - mean) / math.sqrt(len(features) - 1)
    if len(root) > root.shape[1]:
        root = torch.linalg.qr(root, mode="r").R
    return mean, root


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Distance between two sets of features, (N, D) and (M, D), by the module's equation; >= 0 up to rounding."""
    return _distance(_moments(a), _moments(b))


def _distance(a: Moments, b: Moments) -> float:
    (mean_a, root_a), (mean_b, root_b) = a, b
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"features have {len(mean_a)} and {len(mean_b)} numbers per image; both must have the same")
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * cross
    return float((mean_a - mean_b).square().sum() + spread)


def _left_out(groups: Tensor) -> list[Tensor]:
    """For each group the indices of all images outside it; groups: (N,) integers."""
    return [(groups != g).nonzero().flatten() for g in range(int(groups.max()) + 1)]


def jackknife_groups(count: int, samples: int = 1) -> Tensor:
    """(count * samples,) group numbers: image i of `count` is in group i mod GROUPS, with all its samples."""
    return (torch.arange(count) % min(GROUPS, count)).repeat_interleave(samples)


def _spread(left_out: Sequence[float]) -> float:
    values = torch.tensor(left_out, dtype=torch.float64)
    return math.sqrt(float(((values - values.mean()) ** 2).sum()) * (len(values) - 1) / len(values))


def fid(features: Tensor, reference: Tensor, groups: Tensor, baseline: Tensor | None = None) -> Estimate:
    """FID with its delete-a-group jackknife error over the images of `features`; the reference is held fixed.

    Args:
        features: (N, D).
        reference: (M, D), of true images.
        groups: (N,) integers, see `jackknife_groups`.
        baseline: another method's features in the same order. Then the result is FID(features) - FID(baseline), with
            the same images left out of both at a time, so that its error is a paired one.

    Returns:
        Its error is NaN with fewer than two groups, or where leaving a group out leaves fewer than two images.
    """
    moments = _moments(reference)
    sets = [torch.as_tensor(f).double() for f in (features, baseline) if f is not None]

    def value(rows: Tensor) -> float:
        distances = [_distance(_moments(f[rows]), moments) for f in sets]
        return distances[0] - (distances[1] if len(distances) > 1 else 0.0)

    every = value(torch.arange(len(sets[0])))
    subsets = _left_out(torch.as_tensor(groups))
    if len(subsets) < 2 or any(len(subset) < 2 for subset in subsets):
        return Estimate(every, math.nan)
    return Estimate(every, _spread([value(subset) for subset in subsets]))


def load_callable(text: str, name: str) -> Any:
    """Import MODULE:CALLABLE. Raises ValueError naming the option `name` and what is wrong."""
    module, colon, attribute = text.partition(":")
    if not colon or not module or not attribute:
        raise ValueError(f"{name} {text!r} is not MODULE:CALLABLE")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} {text!r} cannot be loaded: {error}") from error


def load_features(text: str = INCEPTION, device: torch.device | str = "cpu") -> Features:
    """Load a feature network: (B, 3, H, W) float32 in [-1, 1] -> (B, D).

    Args:
        text: "inception" (torch-fidelity's port of the original network, which downloads its weights once);
            MODULE:CALLABLE; or a TorchScript file, .pt or .pth.

    Raises:
        ValueError, ImportError: saying what to do about it.
    """
    if text == INCEPTION:
        return _inception(device)
    if Path(text).suffix in (".pt", ".pth"):
        if not Path(text).is_file():
            raise ValueError(f"--fid-features {text} does not exist")
        try:
            network = torch.jit.load(text, map_location=device).eval()
        except RuntimeError as error:
            raise ValueError(f"--fid-features {text} is no TorchScript file: {str(error).splitlines()[0]}") from error
        return lambda images: network(images.to(device))
    return load_callable(text, "--fid-features")


def missing_features(text: str = INCEPTION) -> str | None:
    """Why a feature network cannot run without a download, as a clause; None if nothing stands in the way."""
    if text != INCEPTION:
        return None
    if importlib.util.find_spec("torch_fidelity") is None:
        return "Inception features need torch-fidelity: pip install 'gradpaint[fid]', or --fid-features"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if any(folder.glob(INCEPTION_WEIGHTS)):
        return None
    return (
        f"weights of Inception v3 not found in TORCH_HOME ({folder}/{INCEPTION_WEIGHTS}); --fid downloads them, "
        "--fid-features takes another network"
    )


def _inception(device: torch.device | str) -> Features:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        message = f"FID needs torch-fidelity: pip install 'gradpaint[fid]', or --fid-features ({error})"
        raise ImportError(message) from error
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device).eval()
    except OSError as error:
        raise ImportError(f"FID's network could not be loaded: {error}; see --fid-features") from error

    def features(images: Tensor) -> Tensor:
        return network(images.add(1).mul(127.5).round().clamp(0, 255).to(device, torch.uint8))[0]

    return features


@torch.no_grad()
def features_of(network: Features, batches: Iterable[Tensor]) -> Tensor:
    """Features (N, D), float64 on the CPU, of batches of (B, 3, H, W) images in [-1, 1]."""
    features = [torch.as_tensor(network(batch.float())).flatten(1).double().cpu() for batch in batches]
    if not features:
        raise ValueError("there are no images to take features of")
    return torch.cat(features)
