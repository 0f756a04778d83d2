"""In the host's own frontend: the preset dropdown, and graphs that hold a choice's old name."""

from __future__ import annotations

import json

import in_host
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def nothing_stays_cached(page):
    """What these tests have run would be missing from the outputs of others' runs of the same nodes."""
    yield
    page.forget()


def quickstart() -> dict:
    return json.loads((in_host.PACK_ROOT / "example_workflows" / "gradpaint_quickstart.json").read_text("utf-8"))


def with_early_stop(mode: str, steps: int = 4) -> dict:
    """The quickstart with an Early-Stop Scheduler on its GradPaint KSampler, as version e38f2ec saved it."""
    workflow = quickstart()
    sampler = next(n for n in workflow["nodes"] if n["type"] == "GradPaintKSampler")
    sampler["widgets_values"][2] = steps
    slot = next(i for i, socket in enumerate(sampler["inputs"]) if socket["name"] == "schedule")
    node, link = workflow["last_node_id"] + 1, workflow["last_link_id"] + 1
    workflow["last_node_id"], workflow["last_link_id"] = node, link
    sampler["inputs"][slot]["link"] = link
    workflow["links"].append([link, node, 0, sampler["id"], slot, "GRADPAINT_SCHEDULE"])
    workflow["nodes"].append(
        {
            "id": node,
            "type": "GradPaintEarlyStop",
            "pos": [sampler["pos"][0], sampler["pos"][1] - 400],
            "size": [300, 250],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [],
            "outputs": [{"name": "schedule", "type": "GRADPAINT_SCHEDULE", "links": [link]}],
            "properties": {},
            "widgets_values": [mode, 0.9, 45, 1, "plain", 0.3, 1, 0.15, 0.05],
        }
    )
    return workflow


@pytest.mark.parametrize("nodes_2", [False, True])
def test_a_graph_with_the_old_name_of_a_mode_runs(server, quiet, nodes_2):
    """It goes on showing that name (Nodes 2.0 frames it in red), counts as right, and means what it meant."""
    quiet.setting("Comfy.VueNodes.Enabled", nodes_2)
    try:
        quiet.load(with_early_stop("paper (first 45%)", 5 if nodes_2 else 4))
        assert not [n for n in quiet.nodes() if not n["known"] or n["wrong"]]
        (sent,) = [n["inputs"] for n in quiet.prompt().values() if n["class_type"] == "GradPaintEarlyStop"]
        assert sent["mode"] == "paper (first 45%)"
        before = server.log()
        quiet.run()
        assert not [n for n in quiet.nodes() if n["wrong"]]
    finally:
        quiet.setting("Comfy.VueNodes.Enabled", False)
    log = server.log()[len(before) :]
    assert "mode 'paper (first 45%)' is now 'default (first 45%)'" in log
    assert f"{5 if nodes_2 else 4} steps, 2 guided" in log


CHOOSE = """value => {
    const node = window.app.graph._nodes.find(n => n.type === 'GradPaintKSampler');
    const widget = node.widgets.find(w => w.name === 'preset');
    widget.value = value;
    return [...widget.options.values];
}"""


def test_a_preset_is_chosen_and_runs(server, quiet):
    workflow = quickstart()
    next(n for n in workflow["nodes"] if n["type"] == "GradPaintKSampler")["widgets_values"][2] = 6
    quiet.load(workflow)
    choices = ["custom", "paper", "paper-l2", "GradPaint-Fast", "latent-paper"]
    assert quiet.page.evaluate(CHOOSE, "GradPaint-Fast") == choices
    before = server.log()
    quiet.run()
    assert "6 steps, 3 guided" in server.log()[len(before) :]
