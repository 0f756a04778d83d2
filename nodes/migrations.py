"""Old names of our nodes and inputs, and how a saved prompt that uses them is brought up to date. Imports no host.

Widgets are saved by position in a graph, and by name in an API prompt; links of a graph are saved by name too. So a
renamed input breaks API prompts and linked inputs, and a renamed node breaks both kinds of file: unless it is listed
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RenamedNode:
    """A node that has a new id.

    inputs: new names of its inputs by old ones; those left out kept theirs.
    outputs: new places of its outputs by old ones, likewise.
    widgets: the names of the old node's widgets in their order, as graphs saved their values; after a seed comes
        "control_after_generate".
    """

    old: str
    new: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[int, int] = field(default_factory=dict)
    widgets: Sequence[str] = ()


# {node id: {old name: new name}}. Entries stay for good.
RENAMED_INPUTS: dict[str, dict[str, str]] = {}

# Entries stay for good.
RENAMED_NODES: list[RenamedNode] = []


def migrate(
    prompt: dict,
    renamed_inputs: Mapping[str, Mapping[str, str]] | None = None,
    renamed_nodes: Sequence[RenamedNode] | None = None,
) -> tuple[dict, list[str]]:
    """An API prompt with today's names, and one line about each change; the given prompt itself if nothing is old.

    Args:
        prompt: {node id: {"class_type": ..., "inputs": {name: value or [node id, output]}}}. What has another form is
            left as it is: the server says what is wrong with it.
        renamed_inputs, renamed_nodes: other tables than this module's.
    """
    inputs_by_node = RENAMED_INPUTS if renamed_inputs is None else renamed_inputs
    node_by_id = {rule.old: rule for rule in (RENAMED_NODES if renamed_nodes is None else renamed_nodes)}
    known = {key: node for key, node in prompt.items() if _is_node(node)}
    moved = {key: node_by_id[node["class_type"]] for key, node in known.items() if node["class_type"] in node_by_id}
    notes, found = [], dict(prompt)
    for key, node in known.items():
        new = dict(node)
        rule = moved.get(key)
        if rule is not None:
            new["class_type"] = rule.new
            notes.append(f"node {key}: {rule.old} is now {rule.new}")
        names = {**(rule.inputs if rule else {}), **inputs_by_node.get(new["class_type"], {})}
        new["inputs"] = _renamed(node["inputs"], names, f"node {key} {new['class_type']}", notes)
        new["inputs"] = {name: _moved_link(value, moved) for name, value in new["inputs"].items()}
        found[key] = new
    return (found, notes) if notes else (prompt, notes)


def _is_node(node) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _renamed(inputs: dict, names: Mapping[str, str], where: str, notes: list[str]) -> dict:
    """The inputs under their new names. Where both names are there, a link goes before a value, then new before old."""
    found = {name: value for name, value in inputs.items() if name not in names}
    for old, new in names.items():
        if old in inputs:
            notes.append(f"{where}: input {old} is now {new}")
            if new not in found or (isinstance(inputs[old], list) and not isinstance(found[new], list)):
                found[new] = inputs[old]
    return found


def _moved_link(value, moved: Mapping[str, RenamedNode]):
    """A link to an output that has a new place, else the value as it is."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in moved:
        return [value[0], moved[value[0]].outputs.get(value[1], value[1])]
    return value
