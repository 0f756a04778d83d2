"""Running, interrupting, going on, scoring: one block of an evaluation."""

import csv
import dataclasses
import math

import pytest
import torch

from gradpaint.evaluation.block import Evaluation
from gradpaint.evaluation.methodspec import parse_method
from gradpaint.evaluation.results import collect
from gradpaint.image.files import load_image, save_image


def pictures(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("images/**/*.png"))}


def finished(block, denoiser):
    evaluation = Evaluation(block)
    evaluation.run(denoiser, progress=False)
    return evaluation


def test_results_inputs_and_tables_are_written(make_block, denoiser):
    block = make_block(sheets=3)
    evaluation = finished(block, denoiser)
    name = block.cases.names[0]
    assert len(pictures(block.folder)) == 10 and evaluation.missing() == 0
    original = load_image(block.folder / "inputs" / f"{name}.png")
    assert torch.equal(original[0], block.cases.images([name])[0])
    result = load_image(block.folder / "images" / "gradpaint" / "seed0" / f"{name}.png")
    known = (block.cases.masks([name]) == 0).expand_as(result)
    assert torch.equal(result[known], original[known]) and not torch.equal(result, original)
    text = (block.folder / "results.md").read_text()
    assert "| combine_image | 5 |" in text and "| minus combine_image |" in text and "missing" not in text
    assert (block.folder / "sheet_01.png").is_file()
    rows = list(csv.DictReader((block.folder / "results.csv").open()))
    assert [row["method"] for row in rows] == ["combine_image", "gradpaint"]
    guided = evaluation.folder.records.get("gradpaint", 0, name)
    assert float(rows[1]["forwards"]) == guided["forwards"] and float(rows[1]["backwards"]) == guided["backwards"] > 0
    assert float(rows[0]["forwards"]) == 3 and float(rows[0]["backwards"]) == 0
    assert float(rows[1]["masked_mse_minus_combine_image"]) == pytest.approx(
        float(rows[1]["masked_mse"]) - float(rows[0]["masked_mse"])
    )


@pytest.mark.parametrize("stop_at", [1, 8, 14])
def test_an_interrupted_run_goes_on_to_the_same_pictures(make_block, denoiser, tmp_path, stop_at):
    whole = make_block(folder=tmp_path / "whole", seeds=(0, 3))
    finished(whole, type(denoiser)())
    block = make_block(folder=tmp_path / "parts", seeds=(0, 3))
    denoiser.stop_at = stop_at
    evaluation = Evaluation(block)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(denoiser, progress=False)
    before = pictures(block.folder)
    assert len(before) < 20 and evaluation.missing() == 20 - len(before)
    assert len(evaluation.scorer.records.rows) == len(before)  # all that is done is in the tables
    assert "are still missing" in (block.folder / "results.md").read_text()
    second = type(denoiser)()
    evaluation = finished(block, second)
    total = type(denoiser)()
    finished(make_block(folder=tmp_path / "counted", seeds=(0, 3)), total)
    assert second.calls == total.calls - 3 * (len(before) // 2)  # finished batches of two are not run again
    after = pictures(block.folder)
    assert after == pictures(whole.folder)
    assert {name: after[name] for name in before} == before


def test_an_interruption_between_two_pictures_of_a_batch(make_block, denoiser, tmp_path, monkeypatch):
    from gradpaint.evaluation import runner

    whole = make_block(folder=tmp_path / "whole", count=4)
    finished(whole, denoiser)
    block = make_block(folder=tmp_path / "parts", count=4)
    written, replace = [], runner.replace_file

    def stops(path, write):
        if "images" in path.parts:
            written.append(path)
            if len(written) == 2:
                raise KeyboardInterrupt
        return replace(path, write)

    monkeypatch.setattr(runner, "replace_file", stops)
    with pytest.raises(KeyboardInterrupt):
        finished(block, denoiser)
    assert len(pictures(block.folder)) == 1
    monkeypatch.setattr(runner, "replace_file", replace)
    finished(block, denoiser)
    assert pictures(block.folder) == pictures(whole.folder)


def test_images_methods_and_seeds_may_be_added(make_block, denoiser):
    finished(make_block(count=3), denoiser)  # the last batch of two has one image
    before = pictures(make_block().folder)
    more = make_block(("combine_image", "gradpaint", "combine_noisy"), seeds=(0, 1), count=5)
    finished(more, denoiser)
    after = pictures(more.folder)
    assert len(after) == 30 and {name: after[name] for name in before} == before
    calls = denoiser.calls
    finished(more, denoiser)
    assert denoiser.calls == calls  # nothing was left to do


def test_another_configuration_is_refused(make_block, denoiser):
    finished(make_block(("copy",), count=2), denoiser)
    with pytest.raises(ValueError, match="steps was 3 and is now 4"):
        Evaluation(make_block(("copy",), count=2, steps=4))


def test_a_label_that_is_made_otherwise_now_is_made_again(make_block, denoiser):
    block = make_block(("combine_image",), count=2)
    finished(block, denoiser)
    before = pictures(block.folder)
    block.specs = [dataclasses.replace(parse_method("combine_image:steps=2"), label="combine_image")]
    finished(block, denoiser)
    after = pictures(block.folder)
    assert set(after) == set(before) and all(after[name] != before[name] for name in before)


def test_gradients_left_out_are_told(make_block, denoiser):
    class Steep(type(denoiser)):
        def __call__(self, x, sigma):
            return super().__call__(x, sigma) + (x - x.detach()).abs().sqrt()  # finite, with an infinite slope

    assert "not finite" not in finished(make_block(("gradpaint",), count=2), denoiser).text()
    text = finished(make_block(("gradpaint",), count=4), Steep()).text()
    assert "gradpaint: 2 gradients were not finite and were left out" in text  # 2 new images, 1 guided step


def test_methods_see_one_noise_and_no_hole(make_block, denoiser, monkeypatch):
    from gradpaint.evaluation import runner
    from gradpaint.sampling.inpaint import InpaintResult

    seen = {}

    class Spy:
        def __init__(self, name):
            self.name = name

        def run(self, denoiser, y, mask, *, noise, seed, image, **options):
            seen.setdefault(self.name, []).append((y, mask, noise, seed, image))
            return InpaintResult(image=y)

    monkeypatch.setattr(runner, "METHODS", {name: Spy(name) for name in ("combine_image", "gradpaint")})
    block = make_block(batch=2)
    finished(block, denoiser)
    for one, other in zip(seen["combine_image"], seen["gradpaint"]):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3])) and one[3] == other[3]
    y, mask, noise, _, image = (
        torch.cat(part) if torch.is_tensor(part[0]) else part for part in zip(*seen["combine_image"])
    )
    assert torch.equal(y, block.cases.images(block.cases.names) * (mask == 0)) and torch.equal(y, image * (mask == 0))
    assert len({float(n.sum()) for n in noise}) == 5
    assert len({call[3] for call in seen["gradpaint"]}) == 3  # each batch has its own noise in the steps too
    assert noise.std().item() == pytest.approx(1, abs=0.05)


def test_sizes_that_the_model_cannot_take_are_padded(make_block, denoiser):
    block = make_block(("copy", "combine_image"), count=1)
    block.cases.size = (16, 12)
    block.cases._image = lambda source: torch.zeros(3, 16, 12)
    evaluation = finished(block, denoiser)
    assert load_image(evaluation.folder.path(block.specs[1], 0, block.cases.names[0])).shape == (1, 3, 16, 12)


def external(block, folder, change=lambda image, mask: image):
    for name in block.cases.names:
        image, mask = block.cases.images([name]), block.cases.masks([name])
        save_image(change(image, mask), folder / f"{name}.png")
    return folder


def test_another_methods_pictures_are_scored_in_the_same_table(make_block, denoiser, tmp_path):
    plain = make_block()
    folder = external(plain, tmp_path / "lama", lambda image, mask: image * (1 - mask))
    evaluation = finished(make_block(("greyfill",), results={"LaMa": folder}, baseline="LaMa"), denoiser)
    ours, lama = evaluation.methods
    assert lama.label == "LaMa" and lama.costs == {}
    assert torch.allclose(ours.values["masked_mse"], lama.values["masked_mse"], atol=0.01)
    text = evaluation.text()
    assert "| LaMa | 5 |" in text and "| minus LaMa |" in text and "known pixels differ" not in text


def test_a_changed_picture_is_scored_again_and_changed_known_pixels_are_told(make_block, denoiser, tmp_path):
    folder = external(make_block(), tmp_path / "lama")
    block = make_block(("copy",), results={"LaMa": folder})
    assert float(finished(block, denoiser).methods[1].values["masked_mse"].max()) == 0
    external(block, folder, lambda image, mask: image * 0)
    evaluation = finished(block, denoiser)
    assert float(evaluation.methods[1].values["masked_mse"].min()) > 0
    assert "LaMa: known pixels differ by up to" in evaluation.text()


def test_missing_results_are_named(make_block, tmp_path):
    block = make_block(("copy",))
    folder = external(block, tmp_path / "lama")
    (folder / f"{block.cases.names[3]}.png").unlink()
    with pytest.raises(ValueError, match=f"results of LaMa, lacks 1 of 5 images: {block.cases.names[3]}"):
        Evaluation(make_block(("copy",), results={"LaMa": folder}))
    external(block, folder, lambda image, mask: image[..., :8])
    with pytest.raises(ValueError, match="8x16 pixels, but the images are 16x16"):
        Evaluation(make_block(("copy",), results={"LaMa": folder}))


def test_several_seeds_are_averaged_per_image_and_give_a_diversity(make_block, denoiser):
    block = make_block(("combine_image", "copy"), seeds=(0, 1, 2), count=3)
    evaluation = finished(block, denoiser)
    ours, copy = evaluation.methods
    scorer = evaluation.scorer
    name = block.cases.names[1]
    values = [scorer.records.get("combine_image", seed, name)["masked_mse"] for seed in (0, 1, 2)]
    assert ours.values["masked_mse"][1].item() == pytest.approx(sum(values) / 3)
    assert len(ours.values["masked_mse"]) == 3 and ours.samples == 3
    assert float(ours.values["diversity_mse"].min()) > 0 and float(copy.values["diversity_mse"].max()) == 0
    assert "diversity, MSE in the hole" in evaluation.text() and "3 seeds" in evaluation.text()


def test_fid_with_its_difference(make_block, denoiser):
    block = make_block(("combine_image", "copy", "greyfill"), count=4, features=lambda images: images.mean(dim=(2, 3)))
    evaluation = finished(block, denoiser)
    means, minus = evaluation.table.means, evaluation.table.minus
    assert means["copy"]["fid"].value == pytest.approx(0, abs=1e-9)
    assert means["greyfill"]["fid"].value > 1e-4 and means["greyfill"]["fid"].error > 0
    assert minus["greyfill"]["fid"].value == pytest.approx(
        means["greyfill"]["fid"].value - means["combine_image"]["fid"].value
    )
    assert "FID against the true images" in evaluation.text()


def test_incomplete_images_are_left_out(make_block, denoiser):
    block = make_block(("combine_image",), seeds=(0, 1), count=4)
    evaluation = finished(block, denoiser)
    evaluation.folder.path(block.specs[0], 1, block.cases.names[2]).unlink()
    scores = collect(evaluation.sources()[0], block.cases.names, evaluation.scorer, evaluation.folder.records)
    assert scores.names == [name for i, name in enumerate(block.cases.names) if i != 2]


def test_one_image_has_no_errors(make_block, denoiser):
    evaluation = finished(make_block(count=1), denoiser)
    assert math.isnan(evaluation.table.means["gradpaint"]["masked_mse"].error)
    assert "nan" not in evaluation.text() and evaluation.table.minus == {"gradpaint": {}}


def test_errors(make_block):
    with pytest.raises(ValueError, match="baseline is 'dps', but must be one of: combine_image, gradpaint"):
        Evaluation(make_block(baseline="dps"))
    with pytest.raises(ValueError, match="combine_image is named twice"):
        Evaluation(make_block(("combine_image", "combine_image")))
    with pytest.raises(ValueError, match="batch is 0"):
        Evaluation(make_block(batch=0)).run(None, progress=False)


def test_without_lpips_weights_the_table_says_so(make_block, denoiser, monkeypatch):
    from gradpaint.evaluation import scoring

    def missing(*arguments, **options):
        raise RuntimeError("LPIPS could not load the alex network")

    monkeypatch.setattr(scoring, "lpips", missing)
    evaluation = finished(make_block(("copy",), count=2, net="alex"), denoiser)
    text = evaluation.text()
    assert "No LPIPS: LPIPS could not load the alex network" in text and "| LPIPS |" not in text


def test_lpips_is_scored_once_per_network(make_block, denoiser, monkeypatch):
    from gradpaint.evaluation import diversity, scoring

    asked = []

    def distance(a, b, net):
        asked.append(net)
        return (a - b).abs().mean(dim=(1, 2, 3))

    monkeypatch.setattr(scoring, "lpips", distance)
    monkeypatch.setattr(diversity, "lpips", distance)
    block = make_block(("greyfill", "copy"), count=2, seeds=(0, 1), net="alex")
    means = finished(block, denoiser).table.means
    assert means["copy"]["lpips"].value == 0 < means["greyfill"]["lpips"].value
    assert means["greyfill"]["diversity_lpips"].value == 0
    asked.clear()
    finished(block, denoiser)
    assert asked == ["alex"]  # only whether it works
    finished(make_block(("greyfill", "copy"), count=2, seeds=(0, 1), net="vgg"), denoiser)
    assert asked.count("vgg") == 1 + 8 + 4


def test_what_is_scored_is_what_was_repainted(make_block, denoiser):
    block = make_block(("greyfill",), count=1)
    image, mask = finished(block, denoiser).scorer.case(block.cases.names[0])
    assert torch.equal(mask, block.cases.masks(block.cases.names)) and 0 < mask.mean() < 1
    assert torch.equal(image, block.cases.images(block.cases.names))
