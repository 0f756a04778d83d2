"""Metrics: values worked out by hand, independent derivations, errors."""

import math
import statistics
import sys
from pathlib import Path

import pytest
import torch

from gradpaint.evaluation import metrics
from gradpaint.evaluation.metrics import (
    Estimate,
    jackknife,
    known_error,
    lpips,
    masked_mse,
    masked_psnr,
    mean_estimate,
    paired_difference,
    pooled_ratio,
    seam_energy,
    seam_improvement,
    seam_ratio,
)


def random_case(batch=3, channels=3, height=7, width=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = (torch.rand(batch, 1, height, width, generator=generator) < 0.4).double()
    return a, b, mask


def test_masked_mse_by_hand():
    a, b = torch.zeros(2, 2, 2, 2), torch.zeros(2, 2, 2, 2)
    mask = torch.zeros(2, 1, 2, 2)
    mask[0, 0, 0] = 1  # two pixels
    mask[1, 0, 1, 1] = 1
    b[0, 0, 0, 0] = 2.0  # one of 2 channels * 2 pixels
    b[0, :, 1] = 9.0  # known: does not count
    b[1, :, 1, 1] = torch.tensor([1.0, 3.0])
    assert torch.equal(masked_mse(a, b, mask), torch.tensor([1.0, 5.0]))


def test_masked_mse_is_the_mean_over_selected_pixels():
    a, b, mask = random_case()
    expected = [((a[i] - b[i])[mask[i].expand(3, -1, -1) == 1] ** 2).mean() for i in range(3)]
    assert torch.allclose(masked_mse(a, b, mask), torch.stack(expected), rtol=1e-14)
    shared = masked_mse(a, b, mask[:1])
    assert torch.allclose(shared, masked_mse(a, b, mask[:1].expand(3, -1, -1, -1)))


def test_grey_mask_weights():
    a, b = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 2.0]]]])
    assert masked_mse(a, b, torch.tensor([[[[0.5, 0.25]]]])).item() == (0.5 * 1 + 0.25 * 4) / 0.75


def test_masked_psnr():
    a, b, mask = random_case()
    assert masked_psnr(a, a + 0.2, mask).tolist() == pytest.approx([20.0] * 3)  # 10 log10(4 / 0.04)
    assert masked_psnr(a, b, mask)[1].item() == pytest.approx(10 * math.log10(4 / masked_mse(a, b, mask)[1].item()))
    assert torch.isinf(masked_psnr(a, a, mask)).all()


def test_known_error():
    a, _, mask = random_case()
    b = a + mask * 5
    assert known_error(a, b, mask).tolist() == [0, 0, 0]
    row, column = (mask[1, 0] == 0).nonzero()[0]
    b[1, 2, row, column] -= 0.25
    assert known_error(a, b, mask).tolist() == pytest.approx([0, 0.25, 0])
    assert known_error(a, b, torch.ones_like(mask)).tolist() == [0, 0, 0]


def test_seam_energy_by_hand():
    image = torch.tensor([[[[0.0, 1.0, 4.0], [0.0, 0.0, 0.0]]]])
    mask = torch.tensor([[[[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]])
    assert seam_energy(image, mask).item() == (1 - 0) ** 2 + (1 - 0) ** 2 + (4 - 0) ** 2  # the pair 1, 4 lies inside
    assert seam_energy(image.repeat(1, 3, 1, 1), mask).item() == 18  # mean over channels


def test_seam_energy_pair_by_pair():
    a, _, mask = random_case(seed=3)
    for i in range(len(a)):
        total = 0.0
        for y in range(7):
            for x in range(9):
                for ny, nx in ((y + 1, x), (y, x + 1)):
                    if ny < 7 and nx < 9 and mask[i, 0, y, x] != mask[i, 0, ny, nx]:
                        total += ((a[i, :, y, x] - a[i, :, ny, nx]) ** 2).mean().item()
        assert seam_energy(a, mask)[i].item() == pytest.approx(total, rel=1e-12)


def test_seam_energy_without_a_border():
    a, _, mask = random_case()
    assert seam_energy(a, torch.ones_like(mask)).tolist() == [0, 0, 0]
    assert torch.equal(seam_energy(a, mask), seam_energy(a, 1 - mask))


@pytest.mark.parametrize("function", [masked_mse, masked_psnr, known_error])
def test_shape_errors(function):
    a, b, mask = random_case()
    with pytest.raises(ValueError, match=r"\(3, 3, 7, 9\) and \(2, 3, 7, 9\)"):
        function(a, b[:2], mask)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 3, 7, 9\).*\(3 or 1, 1, 7, 9\)"):
        function(a, b, mask.expand(3, 3, 7, 9))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 1, 7, 9\)"):
        function(a, b, mask[:2])


def test_mask_without_hole():
    a, b, mask = random_case()
    mask[2] = 0
    with pytest.raises(ValueError, match="mask of sample 2 has no hole"):
        masked_mse(a, b, mask)


def test_seam_energy_shape_errors():
    with pytest.raises(ValueError, match=r"mask has shape \(1, 1, 8, 7\)"):
        seam_energy(torch.zeros(1, 3, 7, 8), torch.zeros(1, 1, 8, 7))
    with pytest.raises(ValueError, match=r"image has shape \(3, 7, 8\)"):
        seam_energy(torch.zeros(3, 7, 8), torch.zeros(1, 1, 7, 8))


def test_mean_estimate():
    values = [1.0, 4.0, 2.0, 9.0]
    estimate = mean_estimate(values)
    assert estimate.value == 4.0
    assert estimate.error == pytest.approx(statistics.stdev(values) / 2)
    assert estimate.z == pytest.approx(4 / estimate.error)
    assert math.isnan(mean_estimate([3.0]).error)
    with pytest.raises(ValueError, match=r"values have shape \(0,\)"):
        mean_estimate([])


def test_paired_difference():
    estimate = paired_difference(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([2.0, 3.0, 2.0]))
    assert estimate.value == pytest.approx(2 / 3)
    assert estimate.error == pytest.approx(statistics.stdev([-1, 2, 1]) / math.sqrt(3))
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


def test_z_without_error():
    assert Estimate(-1.0, 0.0).z == -math.inf
    assert Estimate(0.0, 0.0).z == 0


def test_jackknife_of_a_mean_is_its_standard_error():
    values = torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    estimate, expected = jackknife(torch.div, values, torch.ones(20)), mean_estimate(values)
    assert estimate.value == pytest.approx(expected.value)
    assert estimate.error == pytest.approx(expected.error, rel=1e-6)
    with pytest.raises(ValueError, match="N >= 2"):
        jackknife(torch.abs, [1.0])


def test_seam_ratio_is_pooled():
    energy, truth = torch.tensor([3.0, 6.0, 3.0]), torch.tensor([4.0, 0.0, 4.0])  # the second border is flat
    estimate = seam_ratio(energy, truth)
    assert estimate.value == 1.5
    left_out = [9 / 4, 6 / 8, 9 / 4]
    mean = sum(left_out) / 3
    assert estimate.error == pytest.approx(math.sqrt(2 / 3 * sum((value - mean) ** 2 for value in left_out)))
    with pytest.raises(ValueError, match="ratio is undefined"):
        pooled_ratio(energy, torch.zeros(3))


def test_seam_ratio_error_agrees_with_the_delta_method():
    generator = torch.Generator().manual_seed(2)
    truth = 1 + torch.rand(400, generator=generator, dtype=torch.float64)
    energy = truth * (1.5 + 0.3 * torch.randn(400, generator=generator, dtype=torch.float64))
    estimate = seam_ratio(energy, truth)
    residual = energy - estimate.value * truth
    assert estimate.error == pytest.approx((residual.std() / truth.mean() / 20).item(), rel=0.02)


def test_seam_improvement_counts_smoothing_like_a_seam():
    truth = torch.tensor([1.0, 2.0, 3.0])
    assert seam_improvement(truth * 2, truth / 2, truth).value == pytest.approx(0)
    assert seam_improvement(truth, truth * 2, truth).value == pytest.approx(-math.log(2))
    assert seam_improvement(truth, truth * 2, truth).error == pytest.approx(0, abs=1e-6)


def test_lpips_message_without_its_packages(monkeypatch):
    metrics._lpips_network.cache_clear()
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    with pytest.raises(ImportError, match=r"pip install 'gradpaint\[lpips\]'"):
        lpips(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_lpips():
    pytest.importorskip("torchmetrics")
    pytest.importorskip("torchvision")
    if not list(Path(torch.hub.get_dir(), "checkpoints").glob("squeezenet*.pth")):
        pytest.skip("SqueezeNet's weights are not in TORCH_HOME, and tests download nothing")
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    near, far = a.clone(), torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    near[:, :, 20:30, 20:30] = 0
    same, small, large = (lpips(a, b) for b in (a, near, far))
    assert same.tolist() == [0, 0]
    assert small.shape == (2,) and bool((small > 0).all()) and bool((large > small).all())
    assert torch.allclose(lpips(a[1:], near[1:]), small[1:], atol=1e-5)  # per sample
