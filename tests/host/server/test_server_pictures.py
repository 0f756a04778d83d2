"""GradPaint Pictures and the adaptive early stop through the real server."""

from __future__ import annotations

import copy
import re

import pytest
from workflow_api import node_of

pytestmark = pytest.mark.slow
OUTPUTS = ("timeline", "gradients", "losses")


def with_pictures(prompt: dict, keep_record: str, shown: tuple[str, ...]) -> dict:
    """The quickstart's GradPaint branch, its record shown. Inputs newer than the workflow are left out."""
    prompt = copy.deepcopy(prompt)
    sampler = node_of(prompt, "GradPaintKSampler")
    prompt[sampler]["inputs"].update(steps=10, keep_record=keep_record, schedule=["stop", 0])
    prompt["stop"] = {
        "class_type": "GradPaintEarlyStop",
        "inputs": {"mode": "adaptive", "fraction": 0.45, "steps": 45, "every": 1, "tolerance": 0.3, "patience": 0.0},
    }
    prompt["pictures"] = {"class_type": "GradPaintPictures", "inputs": {"record": [sampler, 1]}}
    todo = [f"show {name}" for name in shown]
    for name, key in zip(shown, list(todo)):
        prompt[key] = {"class_type": "PreviewImage", "inputs": {"images": ["pictures", OUTPUTS.index(name)]}}
    keep = {}
    while todo:
        key = todo.pop()
        keep[key] = prompt[key]
        todo += [value[0] for value in prompt[key]["inputs"].values() if isinstance(value, list)]
    return keep


def test_pictures_are_shown(server, prompt):
    history = server.run(with_pictures(prompt, "pictures", OUTPUTS))
    assert history["status"]["status_str"] == "success", history["status"]
    shapes = {key: server.picture(output["images"][0]).shape for key, output in history["outputs"].items()}
    assert shapes["show losses"] == (520, 900, 3)
    assert shapes["show timeline"][0] == 32 + 2 * 200 and shapes["show timeline"][1] > 8 + 8 * 200
    assert shapes["show gradients"][0] == 32 + 2 * 200
    assert re.search(r"GradPaint: guidance (stopped after step|lasted) \d+", server.log())


def test_losses_are_shown_where_the_others_were_not_kept(server, prompt):
    """The host tells the user of the blocked outputs by a message of its own, and goes on."""
    history = server.run(with_pictures(prompt, "losses", OUTPUTS))
    shown = [key for key in history["outputs"] if key.startswith("show")]
    assert history["status"]["status_str"] == "success" and shown == ["show losses"]
