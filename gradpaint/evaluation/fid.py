"""Frechet inception distance (Heusel et al. 2017) from any feature network, in float64, with a jackknife error.

    FID = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2))

With centred features A (n_a, D) and B (n_b, D), S_a S_b has the same non-zero eigenvalues as M M^T for
M = A B^T / sqrt((n_a - 1)(n_b - 1)), so the last trace is the sum of M's singular values. Nothing is squared or
regularised, and with fewer images than features the matrices stay small. FID is biased upwards for few images: compare
methods at the same number only.
"""

import importlib
import math
from pathlib import Path

import torch

from .metrics import Estimate

GROUPS = 20  # of the jackknife


def _centred(features):
    """Mean (D,) and a matrix C with C^T C = covariance, of at most D rows."""
    features = torch.as_tensor(features).double()
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features have shape {tuple(features.shape)}; they must be (N, D) with N >= 2")
    mean = features.mean(0)
    root = (features - mean) / math.sqrt(len(features) - 1)
    if len(root) > root.shape[1]:
        root = torch.linalg.qr(root, mode="r").R
    return mean, root


def frechet_distance(a, b):
    """Distance of two sets of features, (N, D) and (M, D); see the module's equation. float, >= 0 up to rounding."""
    return _distance(_centred(a), _centred(b))


def _distance(a, b):
    (mean_a, root_a), (mean_b, root_b) = a, b
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"features have {len(mean_a)} and {len(mean_b)} numbers per image; both must have the same")
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * cross
    return float((mean_a - mean_b).square().sum() + spread)


def _left_out(groups):
    """For each of the groups the indices of all others; groups: (N,) integers."""
    return [(groups != g).nonzero().flatten() for g in range(int(groups.max()) + 1)]


def jackknife_groups(count, samples=1):
    """(count * samples,) group numbers: image i of `count` is in group i mod GROUPS, with all its samples."""
    return (torch.arange(count) % min(GROUPS, count)).repeat_interleave(samples)


def _spread(values):
    values = torch.tensor(values, dtype=torch.float64)
    return math.sqrt(float(((values - values.mean()) ** 2).sum()) * (len(values) - 1) / len(values))


def fid(features, reference, groups, baseline=None):
    """FID with its delete-a-group jackknife error over the images of `features`; the reference is held fixed.

    features (N, D), groups (N,).  baseline: another method's features in the same order; then the difference
    FID(features) - FID(baseline), both without the same images at a time, so that the error is a paired one.
    Returns an `Estimate`; its error is NaN with fewer than two groups or with groups that leave one image.
    """
    reference = _centred(reference)
    sets = [torch.as_tensor(f).double() for f in (features, baseline) if f is not None]

    def value(rows):
        distances = [_distance(_centred(f[rows]), reference) for f in sets]
        return distances[0] - (distances[1] if len(distances) > 1 else 0.0)

    every = value(torch.arange(len(sets[0])))
    parts = _left_out(torch.as_tensor(groups))
    if len(parts) < 2 or any(len(part) < 2 for part in parts):
        return Estimate(every, math.nan)
    return Estimate(every, _spread([value(part) for part in parts]))


def load_callable(text, name):
    """MODULE:CALLABLE -> the object. Raises ValueError naming the option `name` and what is wrong."""
    module, colon, attribute = text.partition(":")
    if not colon or not module or not attribute:
        raise ValueError(f"{name} {text!r} is not MODULE:CALLABLE")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} {text!r} cannot be loaded: {error}") from error


def load_features(text="inception", device="cpu"):
    """A feature network: callable, (B, 3, H, W) in [-1, 1] -> (B, D).

    text: "inception" (torch-fidelity's port of the original network, which downloads its weights once);
    MODULE:CALLABLE; or a TorchScript file, .pt or .pth. Each is called with float32 images in [-1, 1].
    Raises ValueError or ImportError with what to do about it.
    """
    if text == "inception":
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


def _inception(device):
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError(f"FID needs torch-fidelity: pip install 'gradpaint[fid]', or --fid-features ({error})") from (
            error
        )
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device).eval()
    except OSError as error:
        raise ImportError(f"FID's network could not be loaded: {error}; see --fid-features") from error

    def features(images):
        return network(images.add(1).mul(127.5).round().clamp(0, 255).to(device, torch.uint8))[0]

    return features


@torch.no_grad()
def features_of(network, batches):
    """(N, D) float64 on the CPU for an iterable of (B, 3, H, W) images in [-1, 1]."""
    parts = [torch.as_tensor(network(batch.float())).flatten(1).double().cpu() for batch in batches]
    if not parts:
        raise ValueError("there are no images to take features of")
    return torch.cat(parts)
