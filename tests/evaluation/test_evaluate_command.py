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
    arguments = ["--paper", "table2", "--n", 2, "--steps", 2, "--out", "t", "--batch", 2]
    denoiser.stop_at = 30
    code, out, err = command(*arguments)
    assert code == cli.INTERRUPTED and out == "" and "The same command goes on from there" in err
    page = (tmp_path / "t" / "table2.md").read_text()
    assert "| GradPaint |" in page and "**Stand-in**" in page
    done = sorted((tmp_path / "t").rglob("images/**/*.png"))
    stamps = [path.stat().st_mtime_ns for path in done]
    assert done and not (tmp_path / "t" / "scenes_thick" / "results.csv").exists()
    denoiser.stop_at = None
    code, out, _ = command(*arguments)
    assert code == 0 and [path.stat().st_mtime_ns for path in done] == stamps
    assert len(list((tmp_path / "t").rglob("images/**/*.png"))) == 3 * 7 * 2
    assert (tmp_path / "t" / "scenes_thick" / "results.csv").exists() and "## thick masks" in out
    denoiser.calls = 0
    assert command(*arguments)[0] == 0 and denoiser.calls == 0
    assert "steps was 2 and is now 3" in fails(command, *arguments, "--steps", 3)


@pytest.mark.parametrize("table, pictures", [("table8", 4 * 5 * 3), ("fig9", 7), ("table3", 3 * 6)])
def test_other_tables(command, tmp_path, table, pictures):
    code, out, _ = command("--paper", table, "--n", 1, "--steps", 2, "--sheet", 0)
    assert code == 0 and out.startswith(f"# {table}")
    assert len(list((tmp_path / f"gradpaint_{table}").rglob("images/**/*.png"))) == pictures


def test_data_of_the_paper(command, tmp_path):
    data = folder_of_pictures(tmp_path / "places", 2)
    (tmp_path / "model.pt").write_bytes(b"weights")
    lama = tmp_path / "lama" / "imagenet_thick"
    lama.mkdir(parents=True)
    for path in data.iterdir():
        Image.open(path).resize((16, 16)).save(lama / path.name)
    code, out, _ = command(
        "--paper",
        "table7",
        "--data",
        f"imagenet={data}",
        "--model",
        "imagenet=model.pt",
        "--steps",
        2,
        "--results",
        f"LaMa={tmp_path / 'lama'}",
        "--sheet",
        0,
    )
    assert code == 0 and "Stand-in" not in out and "ImageNet LPIPS, ours" in out and "FFHQ (missing)" in out
    assert next(line for line in out.splitlines() if line.startswith("| LaMa")).count("+-") == 2
    folder = tmp_path / "gradpaint_table7" / "imagenet_thick"
    assert json.loads((folder / "config.json").read_text())["model"].startswith("model.pt ")
    assert len(list(folder.rglob("images/**/*.png"))) == 3 * 2


def test_errors(command, tmp_path):
    data = folder_of_pictures(tmp_path / "data", 2)
    assert "data has 2 images" in fails(command, "--data", data, "--n", 3)
    assert "method is 'lama'" in fails(command, "--methods", "lama")
    assert "is not NAME=PATH" in fails(command, "--results", "lama")
    assert "none is not a folder" in fails(command, "--results", "lama=none")
    assert "baseline is 'dps'" in fails(command, "--baseline", "dps")
    assert "latent_copy needs --codec" in fails(command, "--methods", "latent_copy")
    assert "--seeds names 1 twice" in fails(command, "--seeds", 1, 1)
    assert "--n is 0" in fails(command, "--n", 0)
    assert "--steps is 0" in fails(command, "--steps", 0) and "--sheet is -1" in fails(command, "--sheet", -1)
    assert "only --paper takes several" in fails(command, "--data", "a", "--data", "b")
    assert "leave them out" in fails(command, "--paper", "table2", "--mask", "thin")
    assert "there is no --model imagenet=" in fails(command, "--paper", "table2", "--data", f"imagenet={data}")
    assert "--model without --data" in fails(command, "--paper", "table2", "--model", "imagenet=x.pt")
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
    assert "repaint" in text and "gradpaint_fast" in text and "table2" in text and "%" not in text
