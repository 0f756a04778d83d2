"""benchmarks/presets.py on a denoiser without a network: tables, costs, and that it continues where it stopped."""

import sys

import pytest
import torch
from in_host import PACK_ROOT


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """The script with a smoothing denoiser and random pictures in place of the models and the internal assets."""
    sys.path.insert(0, str(PACK_ROOT / "benchmarks"))
    try:
        import presets as script
    finally:
        sys.path.remove(str(PACK_ROOT / "benchmarks"))
    from gradpaint.evaluation import scoring

    def denoise(x, sigma):
        return torch.nn.functional.avg_pool2d(x, 3, 1, 1) / (1 + sigma)

    def random_images(name, assets, count):
        draw = lambda i: torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(i)) * 2 - 1
        return torch.cat([draw(i) for i in range(count)])

    system = script.System(denoise, torch.logspace(-2, 1, 50, dtype=torch.float64), True, "float32")
    monkeypatch.setattr(script, "load_system", lambda name, assets: system)
    monkeypatch.setattr(script, "load_images", random_images)
    monkeypatch.setattr(scoring, "lpips", lambda a, b, net: (a - b).square().mean((1, 2, 3)))
    fixed = ["--anime64", "0", "--batch", "2", "--runs", "ddpm:4", "--state", str(tmp_path / "state")]
    monkeypatch.setattr(script, "call", lambda *more: script.report(script.arguments([*fixed, *more])), raising=False)
    return script


@pytest.fixture
def made(presets, monkeypatch):
    """The batches that were run, not read from --state."""
    made, run = [], presets.Batch.run
    monkeypatch.setattr(presets.Batch, "run", lambda batch, *rest: made.append(batch) or run(batch, *rest))
    return made


def table(text, first):
    """Method -> its cells, of the first table whose first column is called so."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}


def test_tables(presets):
    text = presets.call("--demo", "4")
    rows = table(text, "method")
    every_step = dict.fromkeys(("mcg", "paper", "paper-l2", "latent-paper"), ("0", "4"))
    ours = {name: ("0", "4") for name in presets.METHODS if "strength 1" in name}
    part = {"combine_image": ("4", "0"), "default": ("2", "2"), "GradPaint-Fast": ("2", "2")}
    assert {name: tuple(cells[3:5]) for name, cells in rows.items()} == {**every_step, **part, **ours}
    assert list(rows) == list(presets.METHODS) and rows["combine_image"][5] == "1.00" and "nan" not in text
    minus = table(text, "minus default")
    assert set(minus) == set(rows) - {"default"}
    difference = float(rows["paper"][1].split()[0]) - float(rows["default"][1].split()[0])
    assert float(minus["paper"][1].split()[0]) == pytest.approx(difference, abs=2e-4)
    assert list(table(text, "minus MSE alone, strength 1")) == [name for name in ours if name.startswith("eqs.")]


def test_the_two_candidates_are_the_papers_losses_at_our_strength(presets):
    paper, ours = presets.METHODS["paper"], presets.METHODS["default"]
    for name, softness in (("eqs. 5-8, strength 1", 0.0), ("eqs. 5-8, strength 1, softness 0.5", 0.5)):
        settings = presets.METHODS[name]
        assert (settings.alpha, settings.strength, settings.normalization) == (None, ours.strength, "rms")
        assert settings.schedule == paper.schedule and settings.alignment.fraction == paper.alignment.fraction
        assert settings.alignment.loss == paper.alignment.loss == "alignment" and settings.alignment.lambda_al == 400
        assert settings.alignment.softness == softness
    assert presets.METHODS["MSE alone, strength 1"].alignment.lambda_al == 0


def test_it_continues(presets, made):
    few = ("--methods", "combine_image", "default")
    text = presets.call("--demo", "4", *few)
    assert [(batch.method, batch.start) for batch in made] == [
        ("combine_image", 0),
        ("default", 0),
        ("combine_image", 2),
        ("default", 2),
    ]
    made.clear()
    assert presets.call("--demo", "4", *few) == text and made == []
    presets.call("--demo", "6", *few)  # more images
    assert [batch.start for batch in made] == [4, 4]
    made.clear()
    presets.call("--demo", "4", *few, "paper")  # one more method
    assert [batch.method for batch in made] == ["paper", "paper"]
    for change in ("ddim:4", "ddpm:3"):
        made.clear()
        presets.call("--demo", "4", *few, "--runs", change)
        assert len(made) == 4, change


def test_interrupted(presets, made, monkeypatch):
    run = presets.Batch.run

    def third_fails(batch, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        return run(batch, *rest)

    few = ("--demo", "4", "--methods", "combine_image", "default")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(presets.Batch, "run", third_fails)
        presets.call(*few)
    presets.call(*few)
    assert len(made) == 4


def test_another_setting_of_a_method_is_run_anew(presets, made, monkeypatch):
    few = ("--demo", "2", "--methods", "combine_image", "default")
    presets.call(*few)
    made.clear()
    monkeypatch.setitem(presets.METHODS, "default", presets.preset("paper"))
    presets.call(*few)
    assert [batch.method for batch in made] == ["default"]


def test_sheet(presets, tmp_path):
    presets.call("--demo", "3", "--methods", "combine_image", "default", "--sheet", str(tmp_path), "--sheet-rows", "2")
    from PIL import Image

    with Image.open(tmp_path / "demo_ddpm4.png") as sheet:
        assert sheet.width > 4 * 64 and 2 * 64 < sheet.height < 3 * 64


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--methods", "paper"], "must include default and combine_image"),
        (["--runs", "euler:30"], "'euler:30' must be ddpm:STEPS or ddim:STEPS"),
        (["--runs", "ddpm"], "'ddpm' must be ddpm:STEPS"),
        (["--demo", "1"], "must be 0 or at least 2"),
    ],
)
def test_wrong_arguments(presets, capsys, wrong, message):
    with pytest.raises(SystemExit):
        presets.arguments(["--state", "x", *wrong])
    assert message in capsys.readouterr().err
