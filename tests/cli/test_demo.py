"""`gradpaint demo`: its files, metrics and interruption, and what the bundled model achieves."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gradpaint.cli import demo
from gradpaint.cli import main as cli
from gradpaint.evaluation.metrics import masked_mse
from gradpaint.guided_diffusion import UNet, UNetConfig
from gradpaint.image.files import load_image, load_mask
from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes


@pytest.fixture
def tiny_model(tmp_path, monkeypatch):
    """The demo with a random network for images of 16 x 16."""
    torch.manual_seed(0)
    config = UNetConfig(model_channels=32, out_channels=3, num_res_blocks=1, channel_mult=(1, 2), attention_ds=())
    path = tmp_path / "tiny.safetensors"
    settings = {"num_head_channels": 64, "noise_schedule": "linear", "image_size": 16}
    save_file(UNet(config).state_dict(), path, metadata={"gradpaint.config": json.dumps(settings)})
    monkeypatch.setattr(demo, "bundled_model_path", lambda: path)


def test_demo_writes_everything(tmp_path, tiny_model, capsys):
    out = tmp_path / "out"
    assert cli.main(["demo", "--out", str(out), "--n", "5", "--steps", "4", "--seed", "2"]) == 0
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    kinds = ("combine_image", "gradpaint", "input", "mask")
    results = [f"results/{i:02d}_{kind}.png" for i in range(5) for kind in kinds]
    assert names == sorted(["contact_sheet.png", "loss.png", *results])

    metrics = json.loads((out / "metrics.json").read_text())
    inputs = torch.cat([load_image(out / f"results/{i:02d}_input.png") for i in range(5)])
    assert torch.allclose(inputs, landscapes(metrics["scene_seeds"], 16), atol=1e-6)
    assert all(seed in HELD_OUT_SEEDS for seed in metrics["scene_seeds"])
    masks = torch.cat([load_mask(out / f"results/{i:02d}_mask.png") for i in range(5)])
    assert masks.mean(dim=(1, 2, 3)).min() >= demo.MIN_COVERAGE
    for name in ("combine_image", "gradpaint"):
        results = torch.cat([load_image(out / f"results/{i:02d}_{name}.png") for i in range(5)])
        known = (masks == 0).expand_as(results)
        assert torch.equal(results[known], inputs[known])
        row = metrics["methods"][name]
        assert row["known_error"] == 0
        assert row["masked_mse"] == pytest.approx(masked_mse(results, inputs, masks).mean().item(), rel=0.02)
        assert row["evaluations"] == 5 * 4
    assert metrics["methods"]["combine_image"]["backwards"] == 0
    assert metrics["methods"]["gradpaint"]["backwards"] == 5 * 2
    text = capsys.readouterr().out
    assert f"{metrics['methods']['gradpaint']['masked_mse']:.4f}" in text and str(out) in text


def test_demo_is_repeatable(tmp_path, tiny_model):
    first, second = (demo.run_demo(tmp_path / name, count=2, steps=3, progress=False)["methods"] for name in ("a", "b"))
    assert first["gradpaint"]["per_image"] == second["gradpaint"]["per_image"]


def test_interruption_keeps_finished_pictures(tmp_path, tiny_model, monkeypatch, capsys):
    original, calls = demo.inpaint, []

    def interrupted(*arguments, **options):
        calls.append(options["method"])
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(demo, "inpaint", interrupted)
    code = cli.main(["demo", "--out", str(tmp_path / "out"), "--n", "6", "--steps", "2"])
    assert code == cli.INTERRUPTED
    assert len(list((tmp_path / "out").rglob("*.png"))) == 16  # 4 images: input, mask, two results
    assert "16 finished images are in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [(["--n", "0"], "number of images is 0"), (["--seed", "10000"], "seed is 10000"), (["--steps", "0"], "steps is 0")],
)
def test_demo_errors(tmp_path, tiny_model, capsys, arguments, message):
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_bundled_model_paints_landscapes(tmp_path):
    """Four scenes: GradPaint beats combine_image, and a hole filled with the known pixels' mean color."""
    metrics = demo.run_demo(tmp_path, count=4, steps=20, progress=False)
    images = landscapes(metrics["scene_seeds"])
    masks = torch.cat([load_mask(tmp_path / f"results/{i:02d}_mask.png") for i in range(4)])
    mean = (images * (1 - masks)).sum(dim=(2, 3), keepdim=True) / (1 - masks).sum(dim=(2, 3), keepdim=True)
    flat = masked_mse(mean.expand_as(images), images, masks).mean().item()
    methods = metrics["methods"]
    assert methods["gradpaint"]["masked_mse"] < methods["combine_image"]["masked_mse"]
    assert methods["gradpaint"]["masked_mse"] < flat
    assert np.asarray(Image.open(tmp_path / "contact_sheet.png")).std() > 20
