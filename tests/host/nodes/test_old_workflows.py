"""The workflows of version e38f2ec, from this repository's history: today's nodes make the same prompts of them."""

import importlib
import json
import subprocess

import executor
import in_host
import pytest
import schema_changes
from workflow_api import to_prompt

OLD = "e38f2ec024f5a95340a2a62f79156b4df03244e8"
FILES = 15


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(in_host.PACK_ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this copy of the pack has no history with the commit {OLD[:7]}: {done.stderr.strip()}")
    return done.stdout


def old_file(path: str):
    return json.loads(git("show", f"{OLD}:{path}"))


@pytest.fixture(scope="module")
def today(host_path, comfy_host, pack_nodes) -> dict:
    """What /object_info says today, of the host's nodes and of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy_host, "NODE_CLASS_MAPPINGS", dict(comfy_host.NODE_CLASS_MAPPINGS))
        executor.register(comfy_host, host_path, pack_nodes)
        return executor.object_info(comfy_host)


@pytest.fixture(scope="module")
def then(today) -> dict:
    """The same with our nodes as they were."""
    ours = old_file("tests/host/object_info.json")
    assert set(ours) <= {name for name in today if today[name].get("category") == "GradPaint"}
    return {**today, **ours}


@pytest.fixture
def migrations(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.migrations")


def translated(migrations, prompt: dict) -> dict:
    """Independently of `migrate`: the prompt with the renamed choices alone, the only renames since."""
    assert not migrations.RENAMED_INPUTS and not migrations.RENAMED_NODES
    return {
        key: {
            **node,
            "inputs": {
                name: migrations.RENAMED_CHOICES.get(node["class_type"], {}).get(name, {}).get(value, value)
                if isinstance(value, str)
                else value
                for name, value in node["inputs"].items()
            },
        }
        for key, node in prompt.items()
    }


def test_every_old_workflow_makes_the_same_prompt(migrations, then, today):
    paths = git("ls-tree", "-r", "--name-only", OLD, "example_workflows").splitlines()
    paths = [path for path in paths if path.endswith(".json")]
    assert len(paths) == FILES
    ours = 0
    for path in paths:
        workflow = old_file(path)
        before, now = to_prompt(workflow, then), to_prompt(workflow, today)
        assert now == before, path
        assert migrations.migrate(now)[0] == translated(migrations, before), path
        ours += sum(node["class_type"].startswith("GradPaint") for node in before.values())
    assert ours > 60


def test_the_old_blueprint_makes_the_same_prompt(then, today):
    made = old_file("subgraphs/GradPaint Inpaint.json")
    inside = made["definitions"]["subgraphs"][0]
    checked = 0
    for node in inside["nodes"]:
        if node["type"].startswith("GradPaint"):
            # Its links come from outside; the values of its widgets are what can go astray.
            before, now = (values_of(node, info[node["type"]]) for info in (then, today))
            assert now == before
            checked += len(before)
    assert checked > 20


def values_of(node: dict, info: dict) -> dict:
    return dict(zip(schema_changes.widgets(info), node["widgets_values"]))


def graph_of(node_id: str, values: list) -> dict:
    """A graph with one node that has no sockets to connect."""
    return {"links": [], "nodes": [{"id": 1, "type": node_id, "widgets_values": values, "inputs": []}]}


def test_every_old_mode_of_the_early_stop_means_the_same(pack_nodes, migrations, then, today):
    """No old example has the node: each of its old choices, as a graph and as the prompt made of it."""
    info = then["GradPaintEarlyStop"]
    modes = info["input"]["required"]["mode"][1]["options"]
    assert modes[0] == "paper (first 45%)" and len(modes) == 7
    rest = [spec[1]["default"] for _, (_, spec) in schema_changes.inputs(info).items()][1:]
    for mode in modes:
        graph = graph_of("GradPaintEarlyStop", [mode, *rest])
        before, now = to_prompt(graph, then), to_prompt(graph, today)
        assert now == before and before["1"]["inputs"]["mode"] == mode
        sent, notes = migrations.migrate(now)
        assert sent == translated(migrations, before)
        assert len(notes) == (mode == "paper (first 45%)")
        assert sent["1"]["inputs"]["mode"] in today["GradPaintEarlyStop"]["input"]["required"]["mode"][1]["options"]
    first, _ = migrations.migrate(to_prompt(graph_of("GradPaintEarlyStop", [modes[0], *rest]), today))
    (schedule,) = pack_nodes["GradPaintEarlyStop"].execute(**first["1"]["inputs"]).args
    assert (schedule.mode, schedule.fraction, schedule.every) == ("fraction", 0.45, 1)


def test_the_old_schema_differs_by_what_is_listed_alone(migrations, then, today):
    ours = {name: info for name, info in then.items() if info.get("category") == "GradPaint"}
    tables = (migrations.RENAMED_INPUTS, migrations.RENAMED_NODES)
    assert schema_changes.breaking(ours, today, *tables, migrations.RENAMED_CHOICES) == []
    assert schema_changes.breaking(ours, today, *tables, {}) == [
        "GradPaintEarlyStop: input mode: choice 'paper (first 45%)' is gone (renamed? list it in nodes/migrations.py)"
    ]
    assert schema_changes.changed_defaults(ours, today, migrations.RENAMED_CHOICES) == []
