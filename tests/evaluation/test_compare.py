"""Comparisons of methods: what each method is given, what the tables say."""

from types import SimpleNamespace

import pytest
import torch

from gradpaint.evaluation.compare import (
    compare,
    library_method,
    paired_statistics,
    paired_table,
    run_methods,
    score,
    summary_table,
)
from gradpaint.evaluation.metrics import masked_mse, seam_energy
from gradpaint.masks import make_masks

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
MASKS = make_masks("coverage", 16, 16, range(5), coverage=0.3)


def constant(value, seen=None):
    """A method that fills the hole with one value."""

    def run(y, mask, noise, seed):
        if seen is not None:
            seen.append((y, mask, noise, seed))
        return SimpleNamespace(image=torch.where(mask > 0, torch.full_like(y, value), y), evaluations=10, backwards=5)

    return run


def test_methods_see_the_same_noise_and_a_blank_hole():
    seen = {"a": [], "b": []}
    batches = []
    runs = run_methods(
        {name: constant(0.0, seen[name]) for name in seen},
        IMAGES,
        MASKS,
        seed=3,
        batch_size=2,
        on_batch=lambda *progress: batches.append(progress),
    )
    assert batches == [("a", 2), ("a", 4), ("a", 5), ("b", 2), ("b", 4), ("b", 5)]
    for a, b in zip(seen["a"], seen["b"]):
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3])) and a[3] == b[3]
    y = torch.cat([call[0] for call in seen["a"]])
    assert torch.equal(y, IMAGES * (MASKS == 0))
    assert [call[3] for call in seen["a"]] == [3, 4, 5]
    assert torch.cat([call[2] for call in seen["a"]]).std().item() == pytest.approx(1, abs=0.05)
    assert runs["a"].images.shape == IMAGES.shape
    assert (runs["a"].evaluations, runs["a"].backwards) == (10, 5)
    assert runs["a"].seconds >= 0


def test_scores_and_tables():
    methods = {"zero": constant(0.0), "one": constant(1.0)}
    runs, text = compare(methods, IMAGES, MASKS, baseline="zero", with_lpips=False)
    assert torch.allclose(runs["one"].scores["masked_mse"], masked_mse(runs["one"].images, IMAGES, MASKS))
    truth = seam_energy(IMAGES, MASKS)
    row = paired_statistics(runs, truth, "zero")["one"]
    difference = runs["one"].scores["masked_mse"] - runs["zero"].scores["masked_mse"]
    assert row["masked_mse"].value == pytest.approx(difference.mean().item())
    assert row["masked_mse"].error == pytest.approx(difference.std().item() / 5**0.5)
    assert set(row) == {"masked_mse", "seam_energy", "abs_log_seam"}

    lines = text.splitlines()
    assert lines[0].startswith("| method | masked MSE | masked PSNR (dB) | seam (1 is ideal) |")
    assert lines[1] == "| " + " | ".join(["---"] * 7) + " |"
    mean = runs["zero"].scores["masked_mse"].mean().item()
    assert lines[2].startswith(f"| zero | {mean:.4f} +- ") and " | 10 | 5 | " in lines[2]
    assert lines[5].startswith("| minus zero | masked MSE |")
    assert lines[7].startswith("| one |") and f"(z {row['masked_mse'].z:+.1f})" in lines[7]
    assert text == summary_table(runs, truth) + "\n\n" + paired_table(runs, truth, "zero")


def test_one_method_has_no_paired_table():
    runs = run_methods({"zero": constant(0.0)}, IMAGES, MASKS)
    assert paired_table(runs, score(runs, IMAGES, MASKS, with_lpips=False), "zero") == ""


def test_one_mask_for_all_images():
    runs, _ = compare({"zero": constant(0.0)}, IMAGES, MASKS[:1], baseline="zero", with_lpips=False)
    assert torch.equal(runs["zero"].images, IMAGES * (MASKS[:1] == 0))


def test_library_method():
    def denoiser(x, sigma):
        return x / (1 + sigma**2)  # of white data with unit variance

    sigmas = torch.tensor([5.0, 2.0, 0.5, 0.0])
    methods = {name: library_method(denoiser, sigmas, method=name) for name in ("combine_image", "gradpaint")}
    runs = run_methods(methods, IMAGES, MASKS, batch_size=3)
    assert runs["combine_image"].evaluations == 3 and runs["combine_image"].backwards == 0
    assert runs["gradpaint"].backwards >= 1
    known = (MASKS == 0).expand_as(IMAGES)
    assert torch.equal(runs["gradpaint"].images[known], IMAGES[known])


def test_errors():
    with pytest.raises(ValueError, match="methods is empty"):
        run_methods({}, IMAGES, MASKS)
    with pytest.raises(ValueError, match="batch_size is 0"):
        run_methods({"zero": constant(0.0)}, IMAGES, MASKS, batch_size=0)
    with pytest.raises(ValueError, match="baseline is 'two'.*zero"):
        compare({"zero": constant(0.0)}, IMAGES, MASKS, baseline="two", with_lpips=False)
