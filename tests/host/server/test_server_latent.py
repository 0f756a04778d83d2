"""A latent diffusion checkpoint in the real server: from the image file to the repaired one, by the nodes alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from latent_networks import FIRST_STAGES, UNETS, state_dict
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prompt(server):
    """Loader, Encode, a sampler node, VAE Decode, Composite; a tiny random class-conditional model and a picture."""
    base = server.log_path.parent
    folder = base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    weights = state_dict(UNETS["cin256_v2_like"][0], FIRST_STAGES["vq_f4_like"][0], 1001)
    torch.save({"state_dict": weights, "global_step": 3}, folder / "tiny_ldm.ckpt")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[20:44, 30:60, 3] = 0  # Load Image makes the mask of this
    (base / "input").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(base / "input" / "tiny_ldm.png")
    loader = {"ckpt_name": "tiny_ldm.ckpt", "class_label": 7, "weights": "auto", "head_channels": 32}
    encode = {name: spec[1]["default"] for name, spec in _widgets(server, "GradPaintEncode").items()}
    return {
        "model": _node("GradPaintLoadLatentDiffusion", **loader),
        "image": _node("LoadImage", image="tiny_ldm.png"),
        "encode": _node("GradPaintEncode", **encode, image=["image", 0], mask=["image", 1], vae=["model", 1]),
        "decode": _node("VAEDecode", samples=["sample", 0], vae=["model", 1]),
        "composite": _node("GradPaintComposite", **_composite(), image=["decode", 0], stitch=["encode", 1]),
        "save": _node("SaveImage", images=["composite", 0], filename_prefix="latent"),
    }


def _node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def _composite():
    return {"blend": 0, "colour_match": "off", "colour_strength": 1.0}


def _widgets(server, node_id):
    groups = json.loads(server.get(f"/object_info/{node_id}"))[node_id]["input"]
    every = {**groups.get("required", {}), **groups.get("optional", {})}
    return {name: spec for name, spec in every.items() if len(spec) > 1 and "default" in spec[1]}


@pytest.mark.parametrize("sampler", ["GradPaintKSampler", "KSampler"])
def test_known_pixels_stay_and_the_hole_is_repainted(server, prompt, sampler):
    own = sampler == "GradPaintKSampler"
    guidance = {name: spec[1]["default"] for name, spec in _widgets(server, "GradPaintApply").items()}
    shared = dict(seed=1, steps=4, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    links = dict(positive=["model", 2], negative=["model", 3], latent_image=["encode", 0])
    nodes = {
        **prompt,
        "apply": _node("GradPaintApply", **guidance, model=["model", 0]),
        "sample": _node(
            sampler, **(guidance if own else {}), **shared, **links, model=["model", 0] if own else ["apply", 0]
        ),
    }
    history = server.run(nodes)
    assert history["status"]["status_str"] == "success", history["status"]
    picture = server.picture(history["outputs"]["save"]["images"][0])
    given = server.picture({"filename": "tiny_ldm.png", "type": "input"})
    hole = np.zeros((64, 96), bool)
    hole[20:44, 30:60] = True
    assert np.array_equal(picture[~hole], given[~hole])
    assert np.abs(picture - given)[hole].mean() > 10
