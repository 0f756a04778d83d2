"""Saved workflows go on working: our nodes against the committed snapshot of /object_info, and the rule by itself."""

import copy
import dataclasses
import importlib
import json

import pytest
import schema_changes
from schema_changes import breaking, changed_defaults

REFRESH = "if it is meant: `python scripts/object_info.py`, commit tests/host/object_info.json and tell CHANGELOG.md"


@pytest.fixture(scope="module")
def current(pack_nodes) -> dict:
    return schema_changes.snapshot({node_id: node.GET_NODE_INFO_V1() for node_id, node in pack_nodes.items()})


@pytest.fixture(scope="module")
def saved() -> dict:
    return schema_changes.load()


def test_saved_workflows_go_on_working(pack, saved, current):
    migrations = importlib.import_module(f"{pack.__name__}.nodes.migrations")
    problems = breaking(saved, current, migrations.RENAMED_INPUTS, migrations.RENAMED_NODES, migrations.RENAMED_CHOICES)
    assert problems == [], "saved workflows would break:\n" + "\n".join(problems)


def test_the_snapshot_is_current(saved, current):
    assert changed_defaults(saved, current) == [], f"API prompts may rely on the old defaults; {REFRESH}"
    differing = sorted(node for node in saved.keys() | current.keys() if saved.get(node) != current.get(node))
    assert differing == [], f"these nodes differ from the snapshot; {REFRESH}"


@pytest.mark.slow
def test_the_server_says_the_same(object_info, saved):
    ours = {node_id: info for node_id, info in object_info.items() if info["category"] == "GradPaint"}
    assert schema_changes.snapshot(ours) == saved


def test_rare_inputs_are_folded(pack_nodes):
    """No node shows more widgets than KSampler (Advanced) and a strength are; the others are under Advanced."""
    for node_id, node in pack_nodes.items():
        given = schema_changes.inputs(json.loads(json.dumps(node.GET_NODE_INFO_V1())))
        shown = [
            name
            for name, (_, (kind, options)) in given.items()
            if kind in schema_changes.WIDGET_TYPES and not options.get("advanced")
        ]
        assert len(shown) <= 10, f"{node_id} shows {shown}"


# ---- the rule by itself


def node(**inputs) -> dict:
    return {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "kind": ["COMBO", {"default": "a", "options": ["a", "b"]}],
                **inputs,
            },
            "optional": {"size": ["INT", {"default": 8, "min": 1, "max": 64}], "mask": ["MASK", {}]},
        },
        "output": ["IMAGE", "MASK"],
        "output_name": ["image", "mask"],
        "output_is_list": [False, False],
        "output_node": True,
        "display_name": "Node",
        "category": "GradPaint",
    }


def changed(edit) -> tuple[dict, dict]:
    new = copy.deepcopy(node())
    edit(new)
    return {"Node": node()}, {"Node": new}


def rename(group: dict, old: str, new: str) -> None:
    items = [(new if name == old else name, spec) for name, spec in group.items()]
    group.clear()
    group.update(items)


def put_first(group: dict, name: str, spec: list) -> None:
    items = list(group.items())
    group.clear()
    group.update([(name, spec), *items])


BREAKING = {
    "removed input": (lambda n: n["input"]["optional"].pop("mask"), "input mask is gone"),
    "renamed input": (lambda n: rename(n["input"]["required"], "seed", "noise_seed"), "input seed is gone"),
    "other type": (lambda n: n["input"]["optional"]["mask"].__setitem__(0, "IMAGE"), "type was MASK, is IMAGE"),
    "new required input": (lambda n: n["input"]["required"].update(vae=["VAE", {}]), "new input vae is required"),
    "optional widget before the others": (
        lambda n: put_first(n["input"]["optional"], "first", ["INT", {"default": 1}]),
        "widgets were",
    ),
    "required now": (lambda n: n["input"]["required"].update(mask=n["input"]["optional"].pop("mask")), "was optional"),
    "no control after the seed": (
        lambda n: n["input"]["required"]["seed"][1].update(control_after_generate=False),
        "widgets were",
    ),
    "no control any more by its name": (
        lambda n: (n["input"]["required"]["seed"][1].clear(), rename(n["input"]["required"], "seed", "start")),
        "widgets were",
    ),
    "a widget that became a socket": (
        lambda n: n["input"]["optional"]["size"][1].update(forceInput=True),
        "widgets were",
    ),
    "choice removed": (lambda n: n["input"]["required"]["kind"][1].update(options=["b", "c"]), "choice 'a' is gone"),
    "narrower": (lambda n: n["input"]["optional"]["size"][1].update(max=32), "max was 64, is 32"),
    "first lower limit": (lambda n: n["input"]["required"]["seed"][1].update(min=5), "min was None, is 5"),
    "outputs swapped": (lambda n: n["output"].reverse(), "output 0 was image"),
    "output removed": (
        lambda n: (n["output"].pop(), n["output_name"].pop(), n["output_is_list"].pop()),
        "output 1 was mask (MASK), is gone",
    ),
    "outputs of one type swapped": (
        lambda n: n.update(output_name=["mask", "image"], output=["IMAGE", "IMAGE"]),
        "output 0 was image",
    ),
    "no output node": (lambda n: n.update(output_node=False), "was an output node"),
    "a list now": (lambda n: n["output_is_list"].__setitem__(0, True), "output 0"),
}
HARMLESS = {
    "nothing": lambda n: None,
    "new optional input, last": lambda n: n["input"]["optional"].update(blend=["INT", {"default": 1}]),
    "new choice": lambda n: n["input"]["required"]["kind"][1].update(options=["c", "a", "b"]),
    "wider": lambda n: n["input"]["optional"]["size"][1].update(max=128),
    "no limit": lambda n: n["input"]["optional"]["size"][1].pop("min"),
    "new output, last": lambda n: (
        n["output"].append("INT"),
        n["output_name"].append("n"),
        n["output_is_list"].append(False),
    ),
    "other label of an output": lambda n: n.update(output_name=["picture", "mask"]),
    "the frontend's own control": lambda n: n["input"]["required"]["seed"][1].pop("control_after_generate"),
    "other title": lambda n: n.update(display_name="New", category="Other"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_is_told(name):
    edit, told = BREAKING[name]
    problems = breaking(*changed(edit))
    assert len(problems) >= 1 and told in "\n".join(problems), problems


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_break_passes(name):
    assert breaking(*changed(HARMLESS[name])) == []


OUTPUTS = ("output", "output_name", "output_is_list")


def input_changes(info: dict, kind: str, name: str):
    """(what, a copy of the node with it): this input changed in each way that breaks workflows."""

    def fresh() -> tuple[dict, dict]:
        new = copy.deepcopy(info)
        return new, new["input"][kind]

    new, group = fresh()
    rename(group, name, "other_name")
    yield "renamed", new
    new, group = fresh()
    group.pop(name)
    yield "removed", new
    new, group = fresh()
    group[name][0] = "AUDIO"
    yield "of another type", new
    if kind == "optional":
        new, group = fresh()
        new["input"].setdefault("required", {})[name] = group.pop(name)
        yield "required", new
    choices = info["input"][kind][name][1].get("options")
    for choice in choices if isinstance(choices, list) else ():
        new, group = fresh()
        group[name][1]["options"].remove(choice)
        yield f"without {choice}", new


def order_changes(info: dict):
    """Likewise: widgets and outputs in another order, outputs gone."""
    shown = schema_changes.widgets(info)
    for kind in ("required", "optional"):
        names = list(info["input"].get(kind, {}))
        for place, (a, b) in enumerate(zip(names, names[1:])):
            if a in shown and b in shown:
                new = copy.deepcopy(info)
                order = [*names[:place], b, a, *names[place + 2 :]]
                new["input"][kind] = {name: info["input"][kind][name] for name in order}
                yield f"{a} and {b} swapped", new
    for place in range(len(info["output"])):
        new = copy.deepcopy(info)
        for key in OUTPUTS:
            new[key].pop(place)
        yield f"output {place} removed", new
        if place:
            new = copy.deepcopy(info)
            for key in OUTPUTS:
                new[key].insert(place - 1, new[key].pop(place))
            yield f"outputs {place - 1} and {place} swapped", new


def test_every_breaking_change_of_our_nodes_is_told(saved):
    tried, untold = 0, []
    for node_id, info in saved.items():
        changes = [
            (f"{name} {what}", new)
            for kind in ("required", "optional")
            for name in info["input"].get(kind, {})
            for what, new in input_changes(info, kind, name)
        ]
        for what, new in [*changes, *order_changes(info)]:
            tried += 1
            if not breaking({node_id: info}, {node_id: new}):
                untold.append(f"{node_id}: {what}")
    assert tried > 500 and untold == []


def test_a_removed_node_breaks():
    assert breaking({"Node": node()}, {}) == ["Node: the node is gone"]


def test_what_is_listed_as_renamed_passes(pack):
    old, new = changed(lambda n: rename(n["input"]["required"], "seed", "noise_seed"))
    assert breaking(old, new, {"Node": {"seed": "noise_seed"}}) == []
    migrations = importlib.import_module(f"{pack.__name__}.nodes.migrations")
    widgets = ("seed", "control_after_generate", "kind", "size")
    rule = migrations.RenamedNode("Node", "NewNode", inputs={"seed": "noise_seed"}, widgets=widgets)
    assert breaking(old, {"NewNode": new["Node"]}, {}, [rule]) == []
    wrong = dataclasses.replace(rule, widgets=("seed", "kind", "size"))
    assert "values of saved graphs would be lost" in "".join(breaking(old, {"NewNode": new["Node"]}, {}, [wrong]))
    assert breaking(old, {"NewNode": new["Node"]}, {}, []) != []


def test_exactly_the_choices_listed_as_renamed_pass(pack):
    old, new = changed(lambda n: n["input"]["required"]["kind"][1].update(default="c", options=["c", "b"]))
    table = {"Node": {"kind": {"a": "c"}}}
    assert breaking(old, new, renamed_choices=table) == [] and changed_defaults(old, new, table) == []
    told = ["Node: input kind: choice 'a' is gone (renamed? list it in nodes/migrations.py)"]
    for other in (
        None,
        {"Node": {"kind": {"a": "d"}}},  # leads nowhere
        {"Node": {"kind": {"b": "c"}}},
        {"Node": {"size": {"a": "c"}}},
        {"Other": {"kind": {"a": "c"}}},
    ):
        assert breaking(old, new, renamed_choices=other) == told, other
        assert changed_defaults(old, new, other) == ["Node: default of kind was 'a', is 'c'"], other
    migrations = importlib.import_module(f"{pack.__name__}.nodes.migrations")
    rule = migrations.RenamedNode("Node", "NewNode", widgets=("seed", "control_after_generate", "kind", "size"))
    moved = {"NewNode": new["Node"]}
    assert breaking(old, moved, {}, [rule], {"NewNode": {"kind": {"a": "c"}}}) == []
    assert len(breaking(old, moved, {}, [rule], table)) == 1  # the table goes by current names


def test_changed_defaults_are_listed():
    old, new = changed(lambda n: n["input"]["optional"]["size"][1].update(default=16))
    assert breaking(old, new) == []
    assert changed_defaults(old, new) == ["Node: default of size was 8, is 16"]


def test_texts_and_the_machines_choices_are_no_part_of_it():
    infos = {"Node": node(sampler_name=["COMBO", {"options": ["euler"], "tooltip": "t", "advanced": True}])}
    snapshot = schema_changes.snapshot(infos)
    assert snapshot["Node"]["input"]["required"]["sampler_name"] == ["COMBO", {"options": "the machine's"}]
    assert json.loads(json.dumps(snapshot)) == snapshot
