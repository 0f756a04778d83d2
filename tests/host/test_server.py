"""The real server, headless on the CPU, with nothing but this pack: all nodes, the quickstart workflow, its pictures."""
from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from workflow_api import to_prompt

PACK_ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = PACK_ROOT / "example_workflows" / "gradpaint_quickstart.json"
NODE_IDS = {"GradPaintLoadGuidedDiffusion", "GradPaintMaskGenerator", "GradPaintAlignmentLoss", "GradPaintEarlyStop",
            "GradPaintKSampler", "GradPaintApply", "GradPaintDemoScene"}
START_SECONDS, RUN_SECONDS = 240, 900

pytestmark = pytest.mark.slow


class Server:
    """A ComfyUI in a process of its own, its folders in `base`."""

    def __init__(self, host: Path, base: Path):
        (base / "custom_nodes").mkdir(parents=True)
        (base / "custom_nodes" / "gradpaint").symlink_to(PACK_ROOT)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = base / "server.log"
        command = [sys.executable, str(host / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(port),
                   "--base-directory", str(base), "--disable-api-nodes", "--disable-auto-launch",
                   "--database-url", "sqlite:///:memory:"]
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        self.process = subprocess.Popen(command, cwd=base, env=environment, stderr=subprocess.STDOUT,
                                        stdout=self.log_path.open("w"))

    def wait(self) -> Server:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return self
            except OSError:
                time.sleep(0.5)
        self.stop()
        pytest.fail(f"ComfyUI did not start; its log ends in:\n{self.log()[-4000:]}")

    def get(self, path: str, **query) -> bytes:
        query = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.url}{path}{query}", timeout=30) as reply:
            return reply.read()

    def run(self, prompt: dict) -> dict:
        """Queue the prompt and wait for it: its entry of /history."""
        request = urllib.request.Request(f"{self.url}/prompt", data=json.dumps({"prompt": prompt}).encode(),
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                prompt_id = json.load(reply)["prompt_id"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"the server refused the prompt: {error.read().decode()}")
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            history = json.loads(self.get(f"/history/{prompt_id}"))
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.5)
        pytest.fail(f"not done after {RUN_SECONDS} s; the log ends in:\n{self.log()[-4000:]}")

    def picture(self, entry: dict) -> np.ndarray:
        """The PNG behind one entry of a node's `images`, float (H, W, 3) in [0, 255]."""
        return np.asarray(Image.open(io.BytesIO(self.get("/view", **entry))).convert("RGB"), dtype=np.float64)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def server(host_path, tmp_path_factory):
    running = Server(host_path, tmp_path_factory.mktemp("server") / "base")
    try:
        yield running.wait()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def object_info(server) -> dict:
    return json.loads(server.get("/object_info"))


@pytest.fixture(scope="module")
def workflow() -> dict:
    return json.loads(WORKFLOW.read_text())


@pytest.fixture(scope="module")
def prompt(workflow, object_info) -> dict:
    return to_prompt(workflow, object_info)


@pytest.fixture(scope="module")
def result(server, prompt) -> dict:
    """The quickstart, run once: {title of the save or preview node: picture}."""
    from gradpaint.models import bundled_model_path

    if not bundled_model_path().is_file():
        pytest.skip("the bundled model is missing from gradpaint/models")
    history = server.run(prompt)
    assert history["status"]["status_str"] == "success", history["status"]
    return {node_id: server.picture(output["images"][0]) for node_id, output in history["outputs"].items()}


def node_of(prompt: dict, class_type: str) -> str:
    found = [key for key, node in prompt.items() if node["class_type"] == class_type]
    assert len(found) == 1, f"{class_type}: {found}"
    return found[0]


def saved_from(prompt: dict, sampler_type: str) -> str:
    """Id of the Save Image node behind the decoder behind the sampler."""
    sampler = node_of(prompt, sampler_type)
    decoder = next(key for key, node in prompt.items()
                   if node["class_type"] == "VAEDecode" and node["inputs"]["samples"][0] == sampler)
    return next(key for key, node in prompt.items()
                if node["class_type"] == "SaveImage" and node["inputs"]["images"][0] == decoder)


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
    assert templates["gradpaint"] == ["gradpaint_quickstart"]


def test_quickstart_uses_both_samplers_alike(prompt):
    ours, theirs = (prompt[node_of(prompt, name)]["inputs"] for name in ("GradPaintKSampler", "KSampler"))
    for name in ("model", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"):
        assert ours[name] == theirs[name]


def test_quickstart_pictures(prompt, result):
    given = result[node_of(prompt, "PreviewImage")]
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
    from gradpaint.models import bundled_model_path
    from gradpaint.samplers import inpaint
    from gradpaint.scenes import HELD_OUT_SEEDS, landscapes
    from gradpaint.schedule import spaced_sigmas
    from gradpaint.settings import AlignmentSettings, GuidanceSettings, GuideSchedule

    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    sampler, scene, drawn = (inputs[f"GradPaint{name}"] for name in ("KSampler", "DemoScene", "MaskGenerator"))
    alignment = inputs["GradPaintAlignmentLoss"]
    assert (sampler["sampler_name"], sampler["scheduler"], sampler["cfg"], sampler["denoise"]) == (
        "ddim", "normal", 1.0, 1.0)
    assert inputs["GradPaintEarlyStop"]["mode"].startswith("fast") and inputs["GradPaintEarlyStop"]["every"] == 1
    settings = GuidanceSettings(alpha=sampler["alpha"], normalization=sampler["normalization"],
                                alignment=AlignmentSettings(**alignment), schedule=GuideSchedule.fast())

    denoiser = load_denoiser(bundled_model_path())
    y = landscapes([HELD_OUT_SEEDS[scene["seed"]]], scene["size"])
    mask = make_mask(drawn["kind"], *y.shape[-2:], drawn["seed"])
    noise = torch.randn(y.shape, generator=torch.manual_seed(sampler["seed"]))  # the host's comfy.sample.prepare_noise
    found = inpaint(denoiser, y, mask, sigmas=spaced_sigmas(denoiser.sigmas, sampler["steps"]), noise=noise,
                    sampler="ddim", settings=settings, progress=False)
    ours = ((found.image[0].permute(1, 2, 0).double().numpy() + 1) / 2 * 255).round()
    difference = np.abs(ours - result[saved_from(prompt, "GradPaintKSampler")])
    with capsys.disabled():
        print(f"\nserver against library, of 255: mean {difference.mean():.4f}, largest {difference.max():.0f}, mean in the "
              f"hole {difference[mask[0, 0].numpy() > 0].mean():.4f}")
    assert difference.mean() < 2


def test_log_is_clean(server, result):
    log = server.log()
    assert "Traceback" not in log
    assert "IMPORT FAILED" not in log
    assert "guided" in log  # GradPaint reports what it did
