"""The real server, headless on the CPU, with nothing but this pack: all nodes, the quickstart and its pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from server_process import PACK_ROOT
from workflow_api import node_of

NODE_IDS = {
    "GradPaintLoadGuidedDiffusion",
    "GradPaintMaskGenerator",
    "GradPaintAlignmentLoss",
    "GradPaintEarlyStop",
    "GradPaintMemory",
    "GradPaintKSampler",
    "GradPaintKSamplerAdvanced",
    "GradPaintSampler",
    "GradPaintApply",
    "GradPaintEncode",
    "GradPaintComposite",
    "GradPaintPictures",
    "GradPaintReport",
    "GradPaintInpaintMethod",
    "GradPaintDemoScene",
    "GradPaintLoadLatentDiffusion",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(server, prompt) -> dict:
    """The quickstart, run once: {id of a node that shows or saves: its picture}; "given": what the samplers get."""
    given = {"class_type": "PreviewImage", "inputs": {"images": [node_of(prompt, "GradPaintEncode"), 2]}}
    history = server.run({**prompt, "given": given})
    assert history["status"]["status_str"] == "success", history["status"]
    return {node_id: server.picture(output["images"][0]) for node_id, output in history["outputs"].items()}


def saved_from(prompt: dict, sampler_type: str) -> str:
    """Id of the Save Image node behind the composite behind the decoder behind the sampler."""
    result = node_of(prompt, sampler_type)
    for kind, name in (("VAEDecode", "samples"), ("GradPaintComposite", "image"), ("SaveImage", "images")):
        result = next(
            key for key, node in prompt.items() if node["class_type"] == kind and node["inputs"][name][0] == result
        )
    return result


def test_all_nodes_are_in_object_info(object_info):
    ours = {key: info for key, info in object_info.items() if info["category"] == "GradPaint"}
    assert set(ours) == NODE_IDS
    for info in ours.values():
        assert info["python_module"] == "custom_nodes.gradpaint" and info["description"]


def test_help_pages_and_workflow_are_served(server):
    for node_id in sorted(NODE_IDS):
        page = server.get(f"/extensions/gradpaint/docs/{node_id}.md").decode()
        assert page.startswith("# ")
    templates = json.loads(server.get("/workflow_templates"))
    names = {path.stem for path in (PACK_ROOT / "example_workflows").glob("*.json")}
    assert set(templates["gradpaint"]) == names and len(names) >= 15
    for name in names:
        assert json.loads(server.get(f"/api/workflow_templates/gradpaint/{name}.json"))["nodes"]
        assert server.get(f"/api/workflow_templates/gradpaint/{name}.jpg").startswith(b"\xff\xd8")


def test_quickstart_uses_both_samplers_alike(prompt):
    ours, theirs = (prompt[node_of(prompt, name)]["inputs"] for name in ("GradPaintKSampler", "KSampler"))
    for name in ("model", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"):
        assert ours[name] == theirs[name]


def test_quickstart_uses_the_defaults(prompt):
    from gradpaint.method.settings import GuidanceSettings

    inputs = prompt[node_of(prompt, "GradPaintKSampler")]["inputs"]
    assert (inputs["strength"], inputs["normalization"], inputs["gradient"], inputs["alpha"]) == (
        GuidanceSettings().strength,
        GuidanceSettings().normalization,
        GuidanceSettings().gradient,
        0,
    )
    assert not {"alignment", "schedule", "memory"} & set(inputs)


def test_quickstart_pictures(prompt, result):
    given = result["given"]
    hole = result[node_of(prompt, "GradPaintMaskGenerator")].mean(-1) > 127
    assert given.shape == (64, 64, 3) and 0.05 < hole.mean() < 0.6
    for sampler in ("GradPaintKSampler", "KSampler"):
        picture = result[saved_from(prompt, sampler)]
        assert picture.shape == given.shape
        assert np.abs(picture - given)[~hole].max() <= 1, f"{sampler}: the known part has changed"
        assert np.abs(picture - given)[hole].mean() > 4, f"{sampler}: the hole is still grey"
    with_, without = (result[saved_from(prompt, sampler)] for sampler in ("GradPaintKSampler", "KSampler"))
    assert np.abs(with_ - without)[hole].mean() > 1


def test_same_seed_through_the_library_gives_the_same_picture(prompt, result, capsys):
    from gradpaint.guided_diffusion import load_denoiser
    from gradpaint.masks import make_mask
    from gradpaint.method.settings import GuidanceSettings
    from gradpaint.models import bundled_model_path
    from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes
    from gradpaint.sampling.inpaint import inpaint
    from gradpaint.sampling.sigmas import spaced_sigmas

    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    sampler, scene, drawn = (inputs[f"GradPaint{name}"] for name in ("KSampler", "DemoScene", "MaskGenerator"))
    assert (sampler["sampler_name"], sampler["scheduler"], sampler["cfg"], sampler["denoise"]) == (
        "ddim",
        "normal",
        1.0,
        1.0,
    )
    settings = GuidanceSettings(strength=sampler["strength"], normalization=sampler["normalization"])

    denoiser = load_denoiser(bundled_model_path())
    y = landscapes([HELD_OUT_SEEDS[scene["seed"]]], scene["size"])
    mask = make_mask(drawn["kind"], *y.shape[-2:], drawn["seed"])
    noise = torch.randn(y.shape, generator=torch.manual_seed(sampler["seed"]))  # the host's comfy.sample.prepare_noise
    inpainted = inpaint(
        denoiser,
        y,
        mask,
        sigmas=spaced_sigmas(denoiser.sigmas, sampler["steps"]),
        noise=noise,
        sampler="ddim",
        settings=settings,
        progress=False,
    )
    ours = np.floor((inpainted.image[0].permute(1, 2, 0).numpy() + 1) / 2 * 255)  # Save Image does not round either
    difference = np.abs(ours - result[saved_from(prompt, "GradPaintKSampler")])
    with capsys.disabled():
        print(
            f"\nserver against library, of 255: mean {difference.mean():.4f}, largest {difference.max():.0f}, "
            f"mean in the hole {difference[mask[0, 0].numpy() > 0].mean():.4f}"
        )
    assert difference.mean() < 2


def test_log_is_clean(server, result):
    log = server.log()
    assert "Traceback" not in log
    assert "IMPORT FAILED" not in log
    assert "guided" in log  # GradPaint reports what it did
