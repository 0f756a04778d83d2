"""The Frechet distance against independent formulas, its jackknife, feature networks."""

import math

import numpy as np
import pytest
import torch

from gradpaint.evaluation.fid import features_of, fid, frechet_distance, jackknife_groups, load_callable, load_features


def samples(count, dimensions, seed, mean=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64) * scale
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64) @ mixing + mean


def by_eigenvalues(a, b):
    """The textbook form with the product of the covariances, which the code never makes."""
    a, b = a.numpy(), b.numpy()
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(s_a @ s_b).astype(complex)).real.sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a) + np.trace(s_b) - 2 * root


@pytest.mark.parametrize("counts", [(200, 150), (5, 200), (6, 4)])  # full rank, and fewer images than features
def test_frechet_distance_agrees_with_the_textbook(counts):
    a, b = samples(counts[0], 8, 0), samples(counts[1], 8, 1, mean=0.3)
    assert frechet_distance(a, b) == pytest.approx(by_eigenvalues(a, b), rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_distance_of_scaled_and_shifted_features():
    """(1 - c)^2 tr(S) + |shift|^2 exactly, in a case where the covariances commute."""
    a = samples(50, 6, 2)
    centred = a - a.mean(0)
    shift = torch.arange(6.0)
    expected = 0.25 * centred.square().sum() / 49 + shift.square().sum()
    assert frechet_distance(a, a.mean(0) + shift + 0.5 * centred) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_jackknife_error_is_about_the_spread_over_data_sets():
    reference = samples(400, 3, 0)
    mixing = samples(3, 3, 9)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(100, 3, generator=generator, dtype=torch.float64) @ mixing + 1

    values = torch.tensor([fid(draw(seed), reference, torch.arange(100) % 20).value for seed in range(100)])
    errors = torch.tensor([fid(draw(seed), reference, torch.arange(100) % 20).error for seed in range(20)])
    assert errors.mean().item() == pytest.approx(values.std().item(), rel=0.25)


def test_paired_error_is_smaller_than_that_of_each():
    reference, noise = samples(300, 4, 0), samples(80, 4, 5)
    groups = jackknife_groups(80)
    one, other = noise + 0.5, noise + 0.6
    difference = fid(other, reference, groups, baseline=one)
    alone = fid(one, reference, groups)
    assert difference.value == pytest.approx(fid(other, reference, groups).value - alone.value)
    assert 0 < difference.error < 0.5 * alone.error


def test_groups_keep_an_images_samples_together():
    assert jackknife_groups(3, samples=2).tolist() == [0, 0, 1, 1, 2, 2]
    groups = jackknife_groups(50)
    assert groups.max() == 19 and groups.bincount().tolist() == [3] * 10 + [2] * 10
    assert math.isnan(fid(samples(2, 3, 0), samples(5, 3, 1), jackknife_groups(2)).error)  # one image cannot be left


def test_errors():
    with pytest.raises(ValueError, match=r"features have shape \(1, 3\)"):
        frechet_distance(samples(1, 3, 0), samples(4, 3, 0))
    with pytest.raises(ValueError, match="3 and 4 numbers"):
        frechet_distance(samples(4, 3, 0), samples(4, 4, 0))
    with pytest.raises(ValueError, match="is not MODULE:CALLABLE"):
        load_callable("torch", "--fid-features")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_callable("torch:no_such_thing", "--fid-features")
    with pytest.raises(ValueError, match="does not exist"):
        load_features("none.pt")
    with pytest.raises(ValueError, match="no images"):
        features_of(torch.neg, [])


def test_feature_networks(tmp_path):
    class Means(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    path = tmp_path / "network.pt"
    torch.jit.script(Means()).save(str(path))
    batches = [torch.full((2, 3, 4, 4), 0.5), torch.zeros(1, 3, 8, 8)]
    features = features_of(load_features(str(path)), batches)
    assert features.dtype == torch.float64 and features.tolist() == [[0.5] * 3] * 2 + [[0.0] * 3]
    assert load_features("torch:flatten") is torch.flatten
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no TorchScript file"):
        load_features(str(path))
