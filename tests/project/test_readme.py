"""What README.md shows is what the project does."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gradpaint import models
from gradpaint.cli import main as cli
from gradpaint.guided_diffusion import UNet, UNetConfig
from gradpaint.image.files import load_image, save_image, save_mask
from gradpaint.masks import make_mask

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_two_commands_are_one_line_each():
    commands = [block.strip() for block in blocks("sh") if "-m venv" in block]
    assert len(commands) == 2 and not any("\n" in command for command in commands)
    demo, tests = commands
    cli.build_parser().parse_args(shlex.split(demo.rsplit("gradpaint ", 1)[1]))
    assert tests.endswith("-m pytest tests -n 2")


def test_shown_commands_are_understood():
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(".venv/bin/gradpaint")]
    assert len(lines) >= 2
    for line in lines:
        cli.build_parser().parse_args(shlex.split(line)[1:])


def test_the_python_example_runs(tmp_path, monkeypatch):
    config = UNetConfig(model_channels=32, out_channels=3, num_res_blocks=1, channel_mult=(1, 2), attention_ds=())
    metadata = {"gradpaint.config": json.dumps({"num_head_channels": 64, "image_size": 16})}
    save_file(UNet(config).state_dict(), tmp_path / "tiny.safetensors", metadata=metadata)
    monkeypatch.setattr(models, "bundled_model_path", lambda: tmp_path / "tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    save_image(torch.zeros(3, 16, 16), "photo.png")
    save_mask(make_mask("half", 16, 16), "mask.png")
    (example,) = blocks("python")
    Path("example.py").write_text(example.replace("denoiser.sigmas, 50", "denoiser.sigmas, 2"), encoding="utf-8")
    runpy.run_path("example.py")
    before, after = load_image("photo.png"), load_image("repaired.png")
    assert torch.equal(before[..., 8:], after[..., 8:])


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!http)([^)]+)\)|`(example_workflows/[^`]+)`", README))))
def test_linked_files_exist(path):
    assert (ROOT / (path[0] or path[1])).is_file()


def test_the_table_lists_every_node():
    shown = set(re.findall(r"^\| \*\*(.+?)\*\* \|", README, flags=re.MULTILINE))
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "nodes").glob("*.py"))
    assert shown == set(re.findall(r'node_id="[^"]+",\s*display_name="([^"]+)"', sources))
