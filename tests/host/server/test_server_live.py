"""What a user sees of a run while it goes on: the progress bar, the preview, and Cancel. Through the real websocket."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import struct
import uuid

import numpy as np
import pytest
from PIL import Image
from workflow_api import node_of

pytestmark = pytest.mark.slow

PREVIEW_EVENT = 1  # of the websocket's binary messages: event, image format, image


def live_prompt(prompt: dict, steps: int, seed: int) -> dict:
    """The quickstart's GradPaint branch alone, every step guided."""
    prompt = copy.deepcopy(prompt)
    sampler = prompt[node_of(prompt, "GradPaintKSampler")]["inputs"]
    sampler.update(steps=steps, seed=seed)
    sampler["schedule"] = ["stop", 0]
    prompt["stop"] = {
        "class_type": "GradPaintEarlyStop",
        "inputs": {"mode": "full (every step)", "fraction": 0.45, "steps": 45, "every": 1},
    }
    keep, todo = {}, ["show"]
    prompt["show"] = {"class_type": "PreviewImage", "inputs": {"images": ["decoded", 0]}}
    prompt["decoded"] = {
        "class_type": "VAEDecode",
        "inputs": {"samples": [node_of(prompt, "GradPaintKSampler"), 0], "vae": [node_of(prompt, "VAELoader"), 0]},
    }
    while todo:
        key = todo.pop()
        keep[key] = prompt[key]
        todo += [value[0] for value in prompt[key]["inputs"].values() if isinstance(value, list)]
    return keep


async def watch(server, prompt: dict, cancel_at: int | None = None):
    """Run the prompt: [(progress value, max)], [preview images], the type of the last message."""
    import aiohttp

    client = uuid.uuid4().hex
    sampler = node_of(prompt, "GradPaintKSampler")
    progress, previews, cancelled = [], [], False
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId={client}") as socket:
        await asyncio.to_thread(server.post, "/prompt", prompt=prompt, client_id=client)
        while True:
            message = await socket.receive(timeout=300)
            if message.type == aiohttp.WSMsgType.BINARY:
                if struct.unpack(">I", message.data[:4])[0] == PREVIEW_EVENT:
                    previews.append(Image.open(io.BytesIO(message.data[8:])).convert("RGB"))
                continue
            event = json.loads(message.data)
            kind, data = event["type"], event["data"]
            if kind == "progress" and data["node"] == sampler:
                progress.append((data["value"], data["max"]))
                if cancel_at is not None and data["value"] >= cancel_at and not cancelled:
                    cancelled = True
                    await asyncio.to_thread(server.post, "/interrupt")
            if kind in ("execution_success", "execution_error", "execution_interrupted"):
                return progress, previews, kind


def test_progress_counts_steps_and_the_preview_shows_the_picture(server, prompt):
    steps = 6
    progress, previews, end = asyncio.run(watch(server, live_prompt(prompt, steps, seed=101)))
    assert end == "execution_success"
    assert progress == [(i + 1, steps) for i in range(steps)]
    assert len(previews) == steps
    # x0_hat with the known part in place: from the first step on it shows the scene outside the hole, not noise.
    from gradpaint.masks import make_mask
    from gradpaint.models.scenes import HELD_OUT_SEEDS, landscape

    scene, drawn = (prompt[node_of(prompt, f"GradPaint{name}")]["inputs"] for name in ("DemoScene", "MaskGenerator"))
    given = landscape(HELD_OUT_SEEDS[scene["seed"]], scene["size"]).astype(float)
    known = make_mask(drawn["kind"], *given.shape[:2], drawn["seed"])[0, 0].numpy() == 0
    for preview in previews:
        shown = np.asarray(preview.resize(given.shape[1::-1]), dtype=float)
        assert np.abs(shown - given)[known].mean() < 12  # JPEG


def test_cancel_stops_within_one_model_evaluation(server, prompt):
    steps, at = 400, 3
    progress, _, end = asyncio.run(watch(server, live_prompt(prompt, steps, seed=102), cancel_at=at))
    assert end == "execution_interrupted"
    # The step during which it was asked may still report; a step more may finish before the request arrives.
    assert at <= progress[-1][0] <= at + 2
    # The server goes on working, with the model in order.
    _, _, end = asyncio.run(watch(server, live_prompt(prompt, 2, seed=103)))
    assert end == "execution_success"
