"""`gradpaint evaluate` from its arguments to its files."""

import json

import numpy as np
import pytest
from PIL import Image

from gradpaint.cli import arguments as cli_arguments
from gradpaint.cli import main as cli


@pytest.fixture
def command(capsys, monkeypatch, tmp_path, denoiser):
    """run(*arguments) -> (exit code, stdout, stderr), with a denoiser that costs nothing."""
    monkeypatch.setattr(cli_arguments, "load_model", lambda arguments, path, device: denoiser)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main(["evaluate", *map(str, arguments), "--lpips-net", "none"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def fails(command, *arguments):
    code, out, err = command(*arguments)
    lines = [line for line in err.splitlines() if line.startswith("gradpaint: ")]
    assert code == 2 and out == "" and len(lines) == 1
    return lines[0]


def folder_of_pictures(path, count):
    path.mkdir()
    generator = np.random.Generator(np.random.PCG64(0))
    for index in range(count):
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path / f"p{index}.png")
    return path


def test_a_folder(command, tmp_path):
    data = folder_of_pictures(tmp_path / "data", 3)
    code, out, _ = command(
        "--data",
        data,
        "--mask",
        "coverage",
        "--coverage",
        0.4,
        "--steps",
        2,
        "--out",
        "r",
        "--methods",
        "gradpaint",
        "combine_image:steps=3",
        "--seeds",
        0,
        1,
        "--strength",
        0.5,
    )
    assert code == 0 and "| combine_image:steps=3 | 3 |" in out and "| minus gradpaint |" in out
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["settings"]["strength"] == 0.5 and config["mask options"] == {"coverage": 0.4}
    assert config["data"] == str(data) and config["model"].startswith("landscapes64.safetensors ")
    assert len(list((tmp_path / "r" / "images").rglob("*.png"))) == 12
    assert (tmp_path / "r" / "sheet_01.png").is_file()


def test_interrupted_and_resumed(command, tmp_path, denoiser):
    arguments = ["--paper", "table2", "--n", 2, "--steps", 2, "--out", "t", "--batch", 1]
    denoiser.stop_at = 12
    code, out, err = command(*arguments)
    assert code == cli.INTERRUPTED and out == "" and "The same command goes on from there" in err
    page = (tmp_path / "t" / "table2.md").read_text()
    assert "| GradPaint | 7.86 |" in page and "**Stand-in**" in page
    done = sorted((tmp_path / "t").rglob("images/**/*.png"))
    stamps = [path.stat().st_mtime_ns for path in done]
    assert done and len(done) < 8
    denoiser.stop_at = None
    code, out, _ = command(*arguments)
    assert code == 0 and [path.stat().st_mtime_ns for path in done] == stamps
    assert len(list((tmp_path / "t").rglob("images/**/*.png"))) == 4 * 2
    assert (tmp_path / "t" / "scenes_thick" / "results.csv").exists() and "## scenes_thick, in full" in out
    denoiser.calls = 0
    assert command(*arguments)[0] == 0 and denoiser.calls == 0
    assert "steps was 2 and is now 3" in fails(command, *arguments, "--steps", 3)


@pytest.mark.parametrize(
    "table, pictures",
    [
        ("table1", 7),
        ("table2", 4),
        ("table3", 5),
        ("table4", 3),
        ("table7", 5),
        ("table8", 4 * 2 * 4),
        ("table9", 2 * 7),
        ("fig9", 7),
    ],
)
def test_every_table(command, tmp_path, table, pictures):
    code, out, _ = command("--paper", table, "--n", 1, "--steps", 2, "--sheet", 0)
    assert code == 0 and out.startswith(f"# {table}")
    assert len(list((tmp_path / f"gradpaint_{table}").rglob("images/**/*.png"))) == pictures


@pytest.mark.parametrize("figure", ["fig2", "fig3a", "fig3b", "fig10"])
def test_every_figure(command, tmp_path, figure):
    code, out, _ = command("--paper", figure, "--steps", 2, "--seeds", "3..4", "--out", "f")
    assert code == 0 and out.startswith(f"# {figure}") and "seeds 3, 4" in out
    assert len(list((tmp_path / "f").glob(f"{figure}_scene_*.png"))) == 1


def test_data_of_the_paper(command, tmp_path):
    """Two data sets, each with its own model, reference and another method's results; the other one without a model."""
    data = folder_of_pictures(tmp_path / "ffhq", 2)
    (tmp_path / "model.pt").write_bytes(b"weights")
    lama = tmp_path / "lama" / "ffhq_thick"
    lama.mkdir(parents=True)
    for path in data.iterdir():
        Image.open(path).resize((16, 16)).save(lama / path.name)
    arguments = [
        "--paper",
        "table1",
        "--data",
        f"ffhq={data}",
        "--model",
        "ffhq=model.pt",
        "--data",
        f"celebahq={data}",
    ]
    arguments += ["--steps", 2, "--results", f"LaMa={tmp_path / 'lama'}", "--size", "16x16", "--out", "r", "--sheet", 0]
    code, out, _ = command(*arguments, "--methods", "dps")
    assert code == 0 and "Stand-in" not in out and "FFHQ (given)" in out
    row = next(line for line in out.splitlines() if line.startswith("| GradPaint | 5.65 |"))
    assert row.count("| not run") == 4  # neither FID nor LPIPS here
    full = out[out.index("## ffhq_thick, in full") : out.index("## celebahq_thick, in full")]
    assert "| LaMa | 2 |" in full and "| dps (not in the paper) | 2 |" in full and "| RePaint | 2 |" in full
    assert "GradPaint not run: --data celebahq has no --model celebahq=CHECKPOINT" in out
    assert "| dps (not in the paper) | - |" in out
    configs = [
        json.loads((tmp_path / "r" / f"{name}_thick" / "config.json").read_text()) for name in ("ffhq", "celebahq")
    ]
    assert configs[0]["model"].startswith("model.pt ") and configs[1]["model"] is None
    assert {path.name for path in (tmp_path / "r" / "celebahq_thick" / "images").iterdir()} == {"COPY", "GREYFILL"}


def test_table8_with_features_of_the_users_own(command, tmp_path, monkeypatch):
    (tmp_path / "mine_for_table8.py").write_text("def features(images):\n    return images.mean(dim=(2, 3))\n")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["--paper", "table8", "--steps", 2, "--out", "r", "--fid-features", "mine_for_table8:features"]
    code, out, _ = command(*arguments, "--seeds", "0..2", 7)
    row = next(line for line in out.splitlines() if line.startswith("| GradPaint | 1.9 | 4.4 | 8.7 | 9.6 |"))
    ours = [float(cell) for cell in row.strip("|").split("|")[5:]]
    assert code == 0 and len(ours) == 4 and all(value > 0 for value in ours)
    assert len(list((tmp_path / "r" / "scenes_coverage_0.1" / "images" / "GradPaint").iterdir())) == 4


def test_weights_that_are_not_there_are_no_silent_substitute(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setattr("gradpaint.evaluation.block.lpips_problem", lambda net, size: pytest.fail("would download"))
    assert cli.main(["evaluate", "--paper", "table4", "--n", "1", "--steps", "2", "--out", "r"]) == 0
    out = capsys.readouterr().out
    assert "LPIPS not run: weights of AlexNet LPIPS not found in TORCH_HOME" in out
    assert "| COPY | 4.29 | 0.0 | 6.47 | 0.0 | not run | not run |" in out and "stand-in LPIPS (AlexNet)" in out
    checkpoints = tmp_path / "none" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "squeezenet1_1-b8a52dc0.pth").touch()
    assert cli.main(["evaluate", "--paper", "table4", "--n", "1", "--steps", "2", "--out", "r"]) == 0
    assert "--lpips-net takes another network: squeeze" in capsys.readouterr().out


def test_classes_and_captions_of_a_folder(command, tmp_path, denoiser, monkeypatch):
    data = folder_of_pictures(tmp_path / "data", 2)
    (tmp_path / "l.csv").write_text("file,label\np0.png,4\np1.png,9\n")
    (tmp_path / "c.csv").write_text("file,caption\np0.png,a dog\np1.png,a cat\n")
    seen = []

    class Conditional(type(denoiser)):
        def __call__(self, x, sigma, label=None):
            seen.append(None if label is None else label.tolist())
            return super().__call__(x, sigma)

    monkeypatch.setattr(cli_arguments, "load_model", lambda arguments, path, device: Conditional())
    arguments = ["--data", data, "--labels", "l.csv", "--captions", "c.csv", "--steps", 2, "--out", "r"]
    assert command(*arguments, "--methods", "combine_image")[0] == 0
    assert seen == [[4, 9]] * 2
    assert (tmp_path / "r" / "conditions.csv").read_text().splitlines()[1] == "p0.png,4,a dog"
    (tmp_path / "l.csv").write_text("file,label\np0.png,4\np1.png,8\n")
    assert "labels was" in fails(command, *arguments, "--methods", "combine_image")


def test_errors(command, tmp_path):
    data = folder_of_pictures(tmp_path / "data", 2)
    assert "data has 2 images" in fails(command, "--data", data, "--n", 3)
    assert "method is 'lama'" in fails(command, "--methods", "lama")
    assert "is not NAME=PATH" in fails(command, "--results", "lama")
    assert "none is not a folder" in fails(command, "--results", "lama=none")
    assert "baseline is 'dps'" in fails(command, "--baseline", "dps")
    assert "latent_copy needs --codec" in fails(command, "--methods", "latent_copy")
    assert "--seeds names 1 twice" in fails(command, "--seeds", 1, "0..2")
    assert "--n is 0" in fails(command, "--n", 0)
    assert "--steps is 0" in fails(command, "--steps", 0) and "--sheet is -1" in fails(command, "--sheet", -1)
    assert "only --paper takes several" in fails(command, "--data", "a", "--data", "b")
    assert "leave them out" in fails(command, "--paper", "table2", "--mask", "thin")
    assert "--data names 'coco', but table1 has" in fails(command, "--paper", "table1", "--data", f"coco={data}")
    assert "--model without --data" in fails(command, "--paper", "table2", "--model", "imagenet=x.pt")
    assert "is not NAME=PATH; names are ffhq, celebahq" in fails(command, "--paper", "table1", "--data", data)
    assert "--data without --model" in fails(command, "--paper", "fig2", "--data", data)
    assert "--methods plays no part in --paper fig2" in fails(command, "--paper", "fig2", "--methods", "dps")
    assert "is not MODULE:CALLABLE" in fails(command, "--fid", "--fid-features", "network")


def test_networks_of_the_users_own(command, tmp_path, monkeypatch):
    (tmp_path / "mine_for_fid.py").write_text(
        "def features(images):\n    return images.mean(dim=(2, 3))\n\n\n"
        "def codec():\n    return (lambda x: x / 2), (lambda z: z * 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = [
        "--n",
        4,
        "--methods",
        "latent_copy",
        "greyfill",
        "--out",
        "r",
        "--codec",
        "mine_for_fid:codec",
        "--fid",
        "--fid-features",
        "mine_for_fid:features",
    ]
    code, out, _ = command(*arguments)
    row = next(line for line in out.splitlines() if line.startswith("| latent_copy | 4 |"))
    assert code == 0 and "| FID |" in out and row.split("|")[3].strip().startswith("0.00 +- ")
    reference = folder_of_pictures(tmp_path / "reference", 3)
    code, other, _ = command(*arguments, "--fid-reference", reference)
    assert code == 0 and f"FID against {reference}" in other
    assert not next(line for line in other.splitlines() if line.startswith("| latent_copy | 4 |")).startswith(row[:30])


def test_fid_without_its_package(command, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert "pip install 'gradpaint[fid]'" in fails(command, "--fid")


def test_the_method_names_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "repaint" in text
        and "gradpaint_fast" in text
        and "table2" in text
        and "fig10" in text
        and "0..499" in text
        and "%" not in text
    )
