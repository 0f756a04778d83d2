import json

import pytest
import torch
from safetensors import safe_open

import gradpaint.models as models
from gradpaint.guided_diffusion import load_denoiser
from gradpaint.models import bundled_model_path
from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes


@pytest.fixture(scope="module")
def denoiser():
    return load_denoiser(bundled_model_path())


def test_file_is_small_and_in_half_precision():
    assert bundled_model_path().stat().st_size <= 10_000_000
    with safe_open(bundled_model_path(), "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}


def test_card_says_where_the_weights_come_from():
    with safe_open(bundled_model_path(), "pt") as file:
        card = json.loads(file.metadata()["gradpaint.card"])
    assert {"data", "held_out_seeds", "seed", "held_out_loss", "hardware", "licence"} <= set(card)
    last = int(card["training_seeds"].split()[-1])
    assert last < HELD_OUT_SEEDS[0] and card["steps"] > 1000


@pytest.mark.parametrize("sigma, largest", [(0.1, 0.002), (0.5, 0.006), (2.0, 0.03)])
def test_denoises_scenes_it_has_never_seen(denoiser, sigma, largest):
    scenes = landscapes(HELD_OUT_SEEDS[:4], denoiser.image_size)
    noise = torch.randn(scenes.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        estimate = denoiser(scenes + sigma * noise, torch.tensor(sigma))
    assert (estimate - scenes).square().mean() < largest


def test_a_missing_file_is_named(monkeypatch):
    monkeypatch.setattr(models, "BUNDLED_MODEL", "absent.safetensors")
    with pytest.raises(FileNotFoundError, match="absent.safetensors is missing"):
        bundled_model_path()
