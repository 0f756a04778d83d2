"""The latent model's training, end to end for seconds, with a stand-in for the autoencoder."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from gradpaint.guided_diffusion import unet
from gradpaint.models.scenes import TRAIN_SEEDS, landscapes

TRAINING = Path(__file__).resolve().parents[2] / "training"
AUTOENCODER = """
import torch
from torch.nn import Conv2d

def load(folder):
    torch.manual_seed(0)
    encoder = Conv2d(3, 32, 8, stride=8)
    decoder = torch.nn.Sequential(Conv2d(32, 3, 1), torch.nn.Upsample(scale_factor=8))
    return encoder.requires_grad_(False), decoder.requires_grad_(False)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(latent_space module, folder of the run, folder of the autoencoder)."""
    folder, taef2 = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("taef2")
    (taef2 / "taef2.py").write_text(AUTOENCODER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(TRAINING), *sys.path])
        patch.setattr(unet, "normalized", unet.normalized)  # the script replaces it for bfloat16; this puts it back
        script, space = importlib.import_module("train_latent"), importlib.import_module("latent_space")
        patch.setattr(script, "HELD_OUT_COUNT", 2)
        script.main(["--taef2", str(taef2), "--out", str(folder), "--minutes", "0.02", "--pool", "3", "--batch", "2"])
    return space, folder, taef2


def test_checkpoint_loads_as_a_denoiser_of_unit_latents(run):
    space_module, folder, taef2 = run
    denoiser, space = space_module.load(folder / "latent.pt", taef2)
    z = space.encode(landscapes(TRAIN_SEEDS[:3], space_module.SIZE))
    assert z.shape == (3, 32, 16, 16)
    assert z.mean().abs() < 0.02 and (z.std(dim=(0, 2, 3)) - 1).abs().max() < 0.05
    x0_hat = denoiser(z[:1] + 2.0 * torch.randn(1, 32, 16, 16), torch.tensor(2.0))
    assert x0_hat.shape == (1, 32, 16, 16) and x0_hat.isfinite().all()
    assert torch.allclose(space.raw(z), space.encoder(landscapes(TRAIN_SEEDS[:3], 128) / 2 + 0.5), atol=1e-4)


def test_log_counts_steps(run):
    lines = [json.loads(line) for line in (run[1] / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] > 0 and 0 < lines[-1]["held_out"] < 100


def test_denoiser_inverts_v(run):
    space_module = run[0]
    z, eps = torch.randn(2, 32, 8, 8), torch.randn(2, 32, 8, 8)
    sigma = 1.7
    s = (1 + sigma**2) ** 0.5

    class Exact(torch.nn.Module):
        def forward(self, x, t):
            return (eps - sigma * z) / s

    denoiser = space_module.LatentDenoiser(Exact(), bfloat16=False)
    assert torch.allclose(denoiser(z + sigma * eps, sigma), z, atol=1e-5)


def test_errors(run, tmp_path):
    space_module, folder, taef2 = run
    with pytest.raises(ValueError, match="--taef2 is .*, but must be a folder with taef2.py"):
        space_module.LatentSpace(tmp_path)
    with pytest.raises(ValueError, match="--model is .*none.pt"):
        space_module.load(tmp_path / "none.pt", taef2)
