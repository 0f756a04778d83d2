"""What saved workflows depend on in our nodes' schemas, and which changes of it would break them.

A snapshot is the host's /object_info of our nodes without texts. Graphs hold widget values by position (a seed's
control counts as one) and outputs by place; API prompts hold inputs by name and may leave optional ones out.
"""

from __future__ import annotations

import json
from pathlib import Path

SNAPSHOT = Path(__file__).parents[1] / "object_info.json"
KEPT = ("input", "output", "output_name", "output_is_list", "output_node", "display_name", "category")
TEXTS = ("tooltip", "advanced", "display_name")  # no workflow depends on these options of an input
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
SEEDS = ("seed", "noise_seed")  # the frontend gives these their control, unless the input says otherwise
CONTROL = "control_after_generate"
# Choices that are the machine's: the host's samplers, the user's files.
HOST_CHOICES = ("sampler_name", "scheduler", "ckpt_name")


def snapshot(infos: dict) -> dict:
    """Of {node id: what the host says about it}; texts and the machine's own choices left out."""
    schemas = {}
    for node_id, info in sorted(infos.items()):
        info = json.loads(json.dumps({key: info[key] for key in KEPT}))
        for group in info["input"].values():
            for name, spec in group.items():
                group[name] = [spec[0], _options(name, spec[1] if len(spec) > 1 else {})]
        schemas[node_id] = info
    return schemas


def _options(name: str, options: dict) -> dict:
    kept = {key: value for key, value in options.items() if key not in TEXTS}
    if name in HOST_CHOICES and "options" in kept:
        kept["options"] = "the machine's"
        kept.pop("default", None)
    return kept


def load() -> dict:
    return json.loads(SNAPSHOT.read_text())


def save(infos: dict) -> None:
    SNAPSHOT.write_text(json.dumps(infos, indent=1) + "\n")


def inputs(info: dict) -> dict[str, tuple[bool, list]]:
    """{name: (required, spec)}, in the order of the node."""
    groups = info["input"]
    return {
        **{name: (True, spec) for name, spec in groups.get("required", {}).items()},
        **{name: (False, spec) for name, spec in groups.get("optional", {}).items()},
    }


def widgets(info: dict) -> list[str]:
    """The places of widgets_values in a saved graph."""
    names = []
    for name, (_, (kind, options)) in inputs(info).items():
        if kind in WIDGET_TYPES and not options.get("forceInput"):
            names.append(name)
            if options.get(CONTROL, kind == "INT" and name in SEEDS):
                names.append(f"{name}: {CONTROL}")
    return names


def breaking(
    old: dict, new: dict, renamed_inputs: dict | None = None, renamed_nodes=(), renamed_choices: dict | None = None
) -> list[str]:
    """Every change that a saved workflow would notice, in words; renamed_*: the tables of `nodes.migrations`."""
    nodes = {rule.old: rule for rule in renamed_nodes}
    problems = []
    for node_id, before in old.items():
        rule = nodes.get(node_id)
        now = rule.new if rule else node_id
        if now not in new:
            problems.append(f"{node_id}: the node is gone")
            continue
        names = {**(rule.inputs if rule else {}), **(renamed_inputs or {}).get(now, {})}
        choices = (renamed_choices or {}).get(now, {})
        problems += [f"{now}: {text}" for text in _node_problems(before, new[now], names, rule, choices)]
    return problems


def _node_problems(before: dict, after: dict, names: dict, rule, choices: dict) -> list[str]:
    new_name = lambda name: names.get(name, name)
    old = {new_name(name): given for name, given in inputs(before).items()}
    new = inputs(after)
    problems = [f"input {name} is gone (renamed? list it in nodes/migrations.py)" for name in old if name not in new]
    problems += [f"new input {name} is required" for name, (required, _) in new.items() if required and name not in old]
    for name in (name for name in old if name in new):
        problems += [f"input {name}: {text}" for text in _input_problems(*old[name], *new[name], choices.get(name, {}))]
    places_then = [":".join([new_name(name.split(":")[0]), *name.split(":")[1:]]) for name in widgets(before)]
    places_now = widgets(after)[: len(places_then)]
    if rule is None and places_then != places_now:
        problems.append(f"widgets were {places_then}, their places are now {places_now}; new ones go last")
    if rule is not None:
        wanted = [CONTROL if CONTROL in place else place for place in widgets(before)]
        if list(rule.widgets) != wanted:
            problems.append(
                f"nodes/migrations.py: the widgets of {rule.old} were {wanted}, its rule says "
                f"{list(rule.widgets)}: values of saved graphs would be lost"
            )
    if before.get("output_node") and not after.get("output_node"):
        problems.append("was an output node, is none: prompts that end in it have no output")
    return problems + _output_problems(before, after, rule)


def _input_problems(was_required: bool, before: list, required: bool, after: list, renamed: dict) -> list[str]:
    (old_kind, old), (kind, new) = before, after
    problems = []
    if old_kind != kind:
        problems.append(f"type was {old_kind}, is {kind}")
    if required and not was_required:
        problems.append("was optional, is required")
    choices, old_choices = new.get("options"), old.get("options")
    if isinstance(old_choices, list):
        left = choices if isinstance(choices, list) else []
        gone = [choice for choice in old_choices if choice not in left and renamed.get(choice) not in left]
        problems += [f"choice {choice!r} is gone (renamed? list it in nodes/migrations.py)" for choice in gone]
    for limit, narrower in (("min", lambda a, b: b > a), ("max", lambda a, b: b < a)):
        if limit in new and (limit not in old or narrower(old[limit], new[limit])):
            problems.append(f"{limit} was {old.get(limit)}, is {new[limit]}: saved values may be refused")
    return problems


def _output_problems(before: dict, after: dict, rule) -> list[str]:
    moved = rule.outputs if rule else {}
    problems = []
    for place, old in enumerate(zip(before["output"], before["output_is_list"])):
        now = moved.get(place, place)
        new = list(zip(after["output"], after["output_is_list"]))
        name, names = before["output_name"][place], after["output_name"]
        # A name of its own is a label that may change; one that is now at another place has moved there.
        elsewhere = name in names and (now >= len(names) or names[now] != name)
        if now >= len(new) or new[now] != old or elsewhere:
            problems.append(f"output {place} was {name} ({old[0]}), is {names[now] if now < len(new) else 'gone'}")
    return problems


def changed_defaults(old: dict, new: dict, renamed_choices: dict | None = None) -> list[str]:
    """Defaults that differ: API prompts that leave an optional input out will behave otherwise."""
    changes = []
    for node_id in (node_id for node_id in old if node_id in new):
        now, choices = inputs(new[node_id]), (renamed_choices or {}).get(node_id, {})
        for name, (_, (_, options)) in ((name, given) for name, given in inputs(old[node_id]).items() if name in now):
            was, default = options.get("default"), now[name][1][1].get("default")
            if was != default and (default is None or choices.get(name, {}).get(was) != default):
                changes.append(f"{node_id}: default of {name} was {was!r}, is {default!r}")
    return changes
