"""Old names in saved prompts: the translation by itself, and in the real server with rules made up for the test."""

import asyncio
import importlib
import json
import logging
import sys
from types import SimpleNamespace

import pytest
from packing import ROOT, packed_files
from server_process import Server
from workflow_api import node_of, to_prompt

INPUTS = {"Node": {"alpha": "strength", "picture": "image"}}
CHOICES = {"Node": {"strength": {"high": "strong", "low": "weak"}}}


@pytest.fixture
def migrations(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.migrations")


def prompt(class_type="Node", **inputs) -> dict:
    return {"1": {"class_type": class_type, "inputs": inputs, "_meta": {"title": "t"}}}


def migrate(migrations, given, nodes=()):
    return migrations.migrate(given, INPUTS, nodes)


def test_todays_prompts_pass_untouched(migrations):
    given = {**prompt(strength=1, image=["2", 0]), "2": {"class_type": "Other", "inputs": {"alpha": 3}}}
    migrated, notes = migrate(migrations, given)
    assert migrated is given and notes == []


def test_renamed_inputs_get_their_new_names(migrations):
    given = prompt(alpha=0.5, picture=["2", 0], seed=4)
    before = json.dumps(given)
    migrated, notes = migrate(migrations, given)
    assert migrated["1"] == {
        "class_type": "Node",
        "inputs": {"strength": 0.5, "image": ["2", 0], "seed": 4},
        "_meta": {"title": "t"},
    }
    assert notes == ["node 1 Node: input alpha is now strength", "node 1 Node: input picture is now image"]
    assert json.dumps(given) == before


def test_renamed_choices_get_their_new_names(migrations):
    of = lambda **inputs: migrations.migrate(prompt(**inputs), INPUTS, (), CHOICES)
    found, notes = of(strength="high", seed="high")
    assert found["1"]["inputs"] == {"strength": "strong", "seed": "high"}
    assert notes == ["node 1 Node: strength 'high' is now 'strong'"]
    assert of(alpha="low")[0]["1"]["inputs"] == {"strength": "weak"}  # saved when the input had another name, too
    rule = migrations.RenamedNode("OldNode", "Node", inputs={"a": "strength"})
    found, _ = migrations.migrate(prompt("OldNode", a="low"), {}, [rule], CHOICES)
    assert found["1"] == {**prompt(strength="weak")["1"]}
    for untouched in ("strong", "higher", 3, None, ["2", 0], ["high", 0], {"high": 1}):
        given = prompt(strength=untouched)
        assert migrations.migrate(given, {}, (), CHOICES) == (given, [])


def test_where_both_names_are_given(migrations):
    both = lambda old, new: migrate(migrations, prompt(alpha=old, strength=new))[0]["1"]["inputs"]
    assert both(1, 2) == {"strength": 2}
    assert both(["2", 0], 2) == {"strength": ["2", 0]}  # a linked widget: the value beside it is the new one's default
    assert both(1, ["2", 0]) == {"strength": ["2", 0]}


def test_renamed_nodes_and_their_outputs(migrations):
    rule = migrations.RenamedNode("OldNode", "Node", inputs={"a": "alpha"}, outputs={0: 1})
    given = {
        **prompt("OldNode", a=2, mask=["7", 0]),
        "2": {"class_type": "Other", "inputs": {"x": ["1", 0], "y": ["1", 5], "z": ["3", 0], "w": [1, 2, 3]}},
    }
    migrated, notes = migrate(migrations, given, [rule])
    assert migrated["1"]["class_type"] == "Node" and migrated["1"]["inputs"] == {"alpha": 2, "mask": ["7", 0]}
    assert migrated["2"]["inputs"] == {"x": ["1", 1], "y": ["1", 5], "z": ["3", 0], "w": [1, 2, 3]}
    assert len(notes) == 2 and given["2"]["inputs"]["x"] == ["1", 0]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"1": None},
        {"1": {"class_type": "Node"}},
        {"1": {"inputs": {"alpha": 1}}},
        {"1": {"class_type": 3, "inputs": {"alpha": 1}}},
        {"1": {"class_type": "Node", "inputs": [1]}},
    ],
)
def test_what_is_no_prompt_is_left_to_the_server(migrations, given):
    assert migrate(migrations, given) == (given, [])


def test_every_listed_rule_leads_somewhere(migrations, pack_nodes):
    for node_id, names in migrations.RENAMED_INPUTS.items():
        ids = {given.id for given in pack_nodes[node_id].GET_SCHEMA().inputs}
        assert set(names.values()) <= ids and not set(names) & ids
    for rule in migrations.RENAMED_NODES:
        assert rule.new in pack_nodes and rule.old not in pack_nodes
        schema = pack_nodes[rule.new].GET_SCHEMA()
        ids = {given.id for given in schema.inputs} | set(migrations.RENAMED_INPUTS.get(rule.new, ()))
        assert set(rule.inputs.values()) <= ids and all(place < len(schema.outputs) for place in rule.outputs.values())


def test_every_renamed_choice_leads_somewhere(migrations, pack_nodes):
    for node_id, choices in migrations.RENAMED_CHOICES.items():
        options = {given.id: getattr(given, "options", ()) for given in pack_nodes[node_id].GET_SCHEMA().inputs}
        for name, today in choices.items():
            assert set(today.values()) <= set(options[name]) and not set(today) & set(options[name])


def test_the_handler(pack, migrations, monkeypatch, caplog):
    handler = importlib.import_module(f"{pack.__name__}.nodes.host.migrate").on_prompt
    monkeypatch.setitem(migrations.RENAMED_INPUTS, "Node", INPUTS["Node"])
    with caplog.at_level(logging.INFO):
        migrated = handler({"prompt": prompt(alpha=1), "client_id": "c"})
    assert migrated == {"prompt": prompt(strength=1), "client_id": "c"}
    assert "from an older version; node 1 Node: input alpha is now strength" in caplog.text
    for other in ({"prompt": prompt(strength=1)}, {"client_id": "c"}, {"prompt": [1]}, None):
        assert handler(other) is other


def test_the_handler_is_registered_once(pack, monkeypatch):
    module = importlib.import_module(f"{pack.__name__}.nodes.host.migrate")
    handlers = []
    server = SimpleNamespace(on_prompt_handlers=handlers, add_on_prompt_handler=handlers.append)
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    asyncio.run(module.register())
    asyncio.run(module.register())
    assert handlers == [module.on_prompt]
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace()))
    asyncio.run(module.register())  # no server is running


# ---- the real server, and a copy of the pack whose tables hold more rules

RULES = """
RENAMED_INPUTS["GradPaintDemoScene"] = {"scene_number": "seed"}
RENAMED_INPUTS["GradPaintMaskGenerator"] = {"like": "size_from"}
RENAMED_CHOICES["GradPaintMaskGenerator"] = {"kind": {"square": "box"}}
RENAMED_NODES.append(RenamedNode("GradPaintOldScene", "GradPaintDemoScene", inputs={"edge": "size"},
                                 widgets=("seed", "control_after_generate", "edge", "batch_size")))
"""


@pytest.fixture(scope="module")
def renaming_server(host_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("renaming")
    for name in packed_files():
        target = folder / "gradpaint" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    table = folder / "gradpaint" / "nodes" / "migrations.py"
    table.write_text(table.read_text() + RULES)
    running = Server(host_path, folder / "base", pack=folder / "gradpaint")
    try:
        yield running.wait()
    finally:
        running.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    "class_type, old",
    [("GradPaintDemoScene", {"scene_number": 5, "size": 64}), ("GradPaintOldScene", {"scene_number": 6, "edge": 64})],
)
def test_old_prompts_run_in_the_real_server(renaming_server, class_type, old):
    from gradpaint.models.scenes import HELD_OUT_SEEDS, landscape

    history = renaming_server.run(
        {
            "1": {"class_type": class_type, "inputs": {"batch_size": 1, **old}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
    )
    assert history["status"]["status_str"] == "success", history["status"]
    migrated = renaming_server.picture(history["outputs"]["2"]["images"][0])
    expected = landscape(HELD_OUT_SEEDS[old["scene_number"]], 64).astype(float)
    assert abs(migrated - expected).max() <= 1  # Preview Image does not round
    assert "from an older version" in renaming_server.log()


@pytest.mark.slow
def test_old_choices_run_in_the_real_server(renaming_server):
    """A made-up rename, and the one that is listed."""
    size = {"width": 40, "height": 32, "batch_size": 1, "seed": 0}
    rest = {"coverage": 0.25, "probability": 0.8, "strokes": "thick", "position": "center", "side": "left"}
    rest |= {"left": 0, "right": 0, "top": 0, "bottom": 0}
    prompt = {}
    for kind in ("square", "box"):
        prompt[kind] = {"class_type": "GradPaintMaskGenerator", "inputs": {"kind": kind, **size, **rest}}
        prompt[f"{kind} shown"] = {"class_type": "MaskPreview", "inputs": {"mask": [kind, 0]}}
    history = renaming_server.run(prompt)
    assert history["status"]["status_str"] == "success", history["status"]
    old, new = (renaming_server.picture(history["outputs"][f"{kind} shown"]["images"][0]) for kind in ("square", "box"))
    assert (old == new).all() and 0 < old.mean() < 255
    assert "node square GradPaintMaskGenerator: kind 'square' is now 'box'" in renaming_server.log()


@pytest.mark.slow
def test_the_old_mode_of_the_early_stop_runs_in_the_real_server(renaming_server):
    """As version e38f2ec saved it: the first 45% of 4 steps, halves down."""
    workflow = json.loads((ROOT / "example_workflows" / "gradpaint_quickstart.json").read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, json.loads(renaming_server.get("/object_info")))
    steps = dict(
        fraction=0.9, steps=45, every=1, between="plain", minimum=0.3, maximum=1, patience=0.15, tolerance=0.05
    )
    sampler, before = node_of(prompt, "GradPaintKSampler"), renaming_server.log()
    inputs = {**prompt[sampler]["inputs"], "steps": 4, "schedule": ["stop", 0]}
    inputs.pop("preset")  # which that version did not have
    history = renaming_server.run(
        {
            **prompt,
            "stop": {"class_type": "GradPaintEarlyStop", "inputs": {"mode": "paper (first 45%)", **steps}},
            sampler: {**prompt[sampler], "inputs": inputs},
        }
    )
    assert history["status"]["status_str"] == "success", history["status"]
    log = renaming_server.log()[len(before) :]
    assert "node stop GradPaintEarlyStop: mode 'paper (first 45%)' is now 'default (first 45%)'" in log
    assert "4 steps, 2 guided" in log


def saved_graph() -> dict:
    """Demo Scene -> Mask Generator, whose input was called `like` when this was saved -> a preview."""

    def node(number: int, kind: str, inputs: list, outputs: list, values: list) -> dict:
        return {
            "id": number,
            "type": kind,
            "pos": [300 * number, 0],
            "size": [200, 300],
            "flags": {},
            "order": number,
            "mode": 0,
            "inputs": inputs,
            "outputs": outputs,
            "properties": {},
            "widgets_values": values,
        }

    return {
        "last_node_id": 3,
        "last_link_id": 2,
        "version": 0.4,
        "groups": [],
        "config": {},
        "extra": {},
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "MASK"]],
        "nodes": [
            node(1, "GradPaintDemoScene", [], [{"name": "IMAGE", "type": "IMAGE", "links": [1]}], [7, "fixed", 72, 1]),
            node(
                2,
                "GradPaintMaskGenerator",
                [{"name": "like", "type": "*", "link": 1}],
                [{"name": "MASK", "type": "MASK", "links": [2]}],
                ["box", 512, 512, 1, 0, "fixed", 0.25, 0.8, "thick", "center", "left", 0, 0, 0, 0],
            ),
            node(3, "MaskPreview", [{"name": "mask", "type": "MASK", "link": 2}], [], []),
        ],
    }


@pytest.mark.slow
def test_old_graphs_keep_their_links_in_the_browser(renaming_server, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    browser = importlib.import_module("browser")
    if browser.missing():
        pytest.skip(browser.missing())
    with browser.frontend(renaming_server.url) as frontend:
        frontend.load(saved_graph())
        prompt = frontend.prompt()
    prompt = prompt.get("output", prompt)
    assert prompt["2"]["inputs"]["like"] == ["1", 0]  # as it was saved; the server knows better
    history = renaming_server.run(prompt)
    assert history["status"]["status_str"] == "success", history["status"]
    assert renaming_server.picture(history["outputs"]["3"]["images"][0]).shape == (72, 72, 3)


@pytest.mark.slow
def test_the_frontend_hears_of_renamed_nodes(renaming_server):
    (rule,) = json.loads(renaming_server.get("/node_replacements"))["GradPaintOldScene"]
    assert (rule["new_node_id"], rule["old_node_id"]) == ("GradPaintDemoScene", "GradPaintOldScene")
    assert rule["old_widget_ids"] == ["seed", "control_after_generate", "edge", "batch_size"]
    assert {"new_id": "size", "old_id": "edge"} in rule["input_mapping"]
    assert {"new_id": "seed", "old_id": "seed"} in rule["input_mapping"]
    assert rule["output_mapping"] == [{"new_idx": 0, "old_idx": 0}]
