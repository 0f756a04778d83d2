"""`gradpaint inpaint --pictures` and `--stop adaptive`, on an image that has to be padded for the model."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from test_main import case, fails, run, tiny_model  # noqa: F401

from gradpaint.sampling import inpaint_image as inpaint_file

FIXED = ["inpaint", "photo.jpg.png", "mask.png", "--steps", 10]


def test_pictures_are_written(capsys, case, tiny_model):  # noqa: F811
    code, text, _ = run(capsys, *FIXED, "--model", tiny_model, "--pictures", "shown/run")
    assert code == 0 and "timeline.png, gradients.png, losses.png" in text
    assert "8 backward passes" in text  # four guided steps, each shown per term
    shown = {name: Image.open(f"shown/run/{name}.png") for name in ("timeline", "gradients", "losses")}
    width, height = 19 * 7, 13 * 7  # the image's own size, enlarged by a whole factor
    assert shown["timeline"].size == (8 + 8 * (width + 8), 32 + height + 8)
    assert shown["gradients"].height == 32 + 2 * (height + 8) and shown["losses"].size == (900, 520)


def test_nothing_more_is_computed_or_written_without(capsys, case, tiny_model):  # noqa: F811
    before = set(Path().rglob("*"))
    code, text, _ = run(capsys, *FIXED, "--model", tiny_model)
    assert code == 0 and "4 backward passes" in text
    assert {path.name for path in set(Path().rglob("*")) - before} == {"photo.jpg_gradpaint.png"}


def test_without_guidance_there_are_no_gradients_to_show(capsys, case, tiny_model):  # noqa: F811
    code, text, _ = run(capsys, *FIXED, "--model", tiny_model, "--method", "combine_image", "--pictures", "shown")
    assert code == 0 and {path.name for path in Path("shown").iterdir()} == {"timeline.png", "losses.png"}


def test_adaptive_stop_reaches_the_run_and_is_reported(capsys, case, tiny_model, monkeypatch):  # noqa: F811
    inpaint_image, seen = inpaint_file.inpaint_image, []
    monkeypatch.setattr(
        inpaint_file,
        "inpaint_image",
        lambda *args, **options: seen.append((inpaint_image(*args, **options), options["settings"])) or seen[-1][0],
    )
    code, text, _ = run(capsys, *FIXED, "--model", tiny_model, "--stop", "adaptive")
    result, settings = seen[0]
    assert code == 0 and settings.schedule.mode == "adaptive" and str(result.stop) in text
    assert torch.isfinite(result.image).all()


def test_bad_stop_and_folder(capsys, case, tiny_model):  # noqa: F811
    with pytest.raises(SystemExit):
        run(capsys, *FIXED, "--stop", "soon")
    assert "'soon' is neither a share of the run, 0 to 1, nor adaptive" in capsys.readouterr().err
    Path("file").write_text("", encoding="utf-8")
    assert "--pictures" in fails(capsys, *FIXED, "--model", tiny_model, "--pictures", "file")
