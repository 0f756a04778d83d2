"""Scores of pictures on disk and of tensors in memory are the same."""

import pytest
import torch

from gradpaint.evaluation.block import Evaluation
from gradpaint.evaluation.results import comparison, paired
from gradpaint.evaluation.scoring import image_scores, score_tensors
from gradpaint.image.files import load_image


def pictures(evaluation, label):
    source = next(source for source in evaluation.sources() if source.label == label)
    return torch.cat([load_image(source.files[0][name]) for name in evaluation.names])


def test_tensors_score_as_files_do(make_block, denoiser):
    evaluation = Evaluation(make_block())
    evaluation.run(denoiser, progress=False)
    images, masks = evaluation.block.cases.images(evaluation.names), evaluation.block.cases.masks(evaluation.names)
    costs = {"forwards": 3.0, "backwards": 0.0, "seconds": 1.5}
    scores = [
        score_tensors(label, pictures(evaluation, label), images, masks, costs=costs, net=None)
        for label in ("combine_image", "gradpaint")
    ]
    table = comparison(scores, "combine_image")
    for label in table.means:
        for metric in ("masked_mse", "masked_psnr", "seam_ratio"):
            assert table.means[label][metric].value == pytest.approx(evaluation.table.means[label][metric].value, 1e-5)
    ours, theirs = table.minus["gradpaint"], evaluation.table.minus["gradpaint"]
    assert ours["masked_mse"].value == pytest.approx(theirs["masked_mse"].value, 1e-5)
    assert table.means["gradpaint"]["seconds"].value == 1.5
    header = paired(table, ("masked_mse", "seam_energy", "abs_log_seam")).splitlines()[0]
    assert header == "| minus combine_image | masked MSE | seam energy | abs log seam |"
    csv = (evaluation.block.folder / "results.csv").read_text().splitlines()[0]
    assert "masked_mse_minus_combine_image" in csv and "seam_energy" not in csv


def test_one_mask_for_all_images():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    scores = score_tensors("zero", images * (1 - mask), images, mask, net=None)
    assert torch.equal(scores.values["masked_mse"], image_scores(images * (1 - mask), images, mask, None)["masked_mse"])
    assert scores.names == ["0", "1", "2"] and "lpips" not in scores.values and scores.costs == {}


def test_the_variance_of_features_is_kept(make_block, denoiser):
    calls = []

    def network(images):
        calls.append(len(images))
        return images.mean((2, 3))

    block = make_block(seeds=range(20), count=1, pairs=False, variance_features=network)
    evaluation = Evaluation(block)
    evaluation.run(denoiser, progress=False)
    assert calls == [16, 4] * 2  # two methods, 20 samples of one image each
    scores = evaluation.methods[0]
    samples = [load_image(files[scores.names[0]]) for files in evaluation.sources()[0].files.values()]
    expected = torch.cat(samples).mean((2, 3)).double().var(0).mean() * 1e3
    assert float(scores.values["feature_variance"][0]) == pytest.approx(float(expected), rel=1e-5)
    assert "diversity_mse" not in scores.values and "feature variance (x 1e-3)" in evaluation.text()
    calls.clear()
    Evaluation(block).run(denoiser, progress=False)
    assert calls == []
    more = make_block(seeds=range(21), count=1, pairs=False, variance_features=network)
    Evaluation(more).run(denoiser, progress=False)
    assert sum(calls) == 2 * 21  # another sample changes the variance
