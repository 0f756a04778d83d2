"""The training script end to end, for seconds: it learns a little, resumes where it stopped, exports what loads."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gradpaint.guided_diffusion import load_denoiser, unet

TRAINING = Path(__file__).resolve().parents[2] / "training"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(TRAINING), *sys.path])
        script, task = importlib.import_module("train_demo"), importlib.import_module("demo_task")

        def train(*options):
            script.main(["--out", str(folder), "--pool", "4", "--batch", "2", "--sheet-rows", "0", *options])

        patch.setattr(unet, "normalized", unet.normalized)  # the script replaces it for bfloat16; this puts it back
        patch.setattr(task, "HELD_OUT_COUNT", 4)
        train("--minutes", "0.03")
        first = torch.load(folder / "checkpoint.pt", weights_only=True)
        train("--minutes", str(first["seconds"] / 60 + 0.03), "--resume", "--float32")
        train("--export", str(folder / "model.safetensors"), "--history", "a test")
    return folder, first


def test_resuming_continues_the_count_and_the_clock(run):
    folder, first = run
    second = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert 0 < first["step"] < second["step"] and 1.8 <= first["seconds"] < second["seconds"]
    assert first["images"] == 2 * first["step"] and second["images"] == 2 * second["step"]
    assert any(not torch.equal(first["model"][name], second["model"][name]) for name in first["model"])


def test_log_is_one_json_object_a_line(run):
    lines = [json.loads(line) for line in (run[0] / "log.jsonl").read_text().splitlines()]
    assert len(lines) >= 2 and all(0.0 < line["held_out"] < 100.0 for line in lines if "held_out" in line)


def test_export_loads_and_carries_its_card(run):
    denoiser = load_denoiser(run[0] / "model.safetensors")
    assert denoiser.image_size == 64 and denoiser.sigmas[-1] <= 10.0
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(denoiser(x, torch.tensor(1.0))).all()
    with safe_open(run[0] / "model.safetensors", "pt") as file:
        card = json.loads(file.metadata()["gradpaint.card"])
    assert card["history"] == "a test" and card["training_seeds"] == "0 to 3"
    assert card["images_seen"] == 2 * card["steps"]
