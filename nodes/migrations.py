"""Old names of nodes, inputs and choices, and the translation of prompts that use them. Imports nothing of ComfyUI.

Graphs save widgets by position and links by name; API prompts save everything by name. So a renamed input breaks API
prompts and linked inputs, and a renamed node or choice breaks both kinds of file, unless it is listed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RenamedNode:
    """A node with a new id.

    Attributes:
        old, new: its ids.
        inputs: {old name: new name}; inputs that are not listed keep their names.
        outputs: {old position: new position}, likewise.
        widgets: the names of the old node's widgets, in the order in which graphs saved their values; a seed is
            followed by "control_after_generate".
    """

    old: str
    new: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[int, int] = field(default_factory=dict)
    widgets: Sequence[str] = ()


# {node id: {old name: new name}}. Entries stay for good.
RENAMED_INPUTS: dict[str, dict[str, str]] = {}

# {node id: {input: {old choice: new choice}}}, node and input by their current names. Entries stay for good.
RENAMED_CHOICES: dict[str, dict[str, dict[str, str]]] = {
    # The paper guides every step; only its alignment loss ends after 45%.
    "GradPaintEarlyStop": {"mode": {"paper (first 45%)": "default (first 45%)"}}
}

# Entries stay for good.
RENAMED_NODES: list[RenamedNode] = []


def migrate(
    prompt: dict,
    renamed_inputs: Mapping[str, Mapping[str, str]] | None = None,
    renamed_nodes: Sequence[RenamedNode] | None = None,
    renamed_choices: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None,
) -> tuple[dict, list[str]]:
    """Translate an API prompt to current names.

    Args:
        prompt: {node id: {"class_type": ..., "inputs": {name: value or [node id, output]}}}. Anything malformed is left
            as it is, for the server to report.
        renamed_inputs, renamed_nodes, renamed_choices: used in place of this module's tables.

    Returns:
        The prompt, the same object if nothing changed, and one line about each change.
    """
    inputs_by_node = RENAMED_INPUTS if renamed_inputs is None else renamed_inputs
    choices_by_node = RENAMED_CHOICES if renamed_choices is None else renamed_choices
    node_by_id = {rule.old: rule for rule in (RENAMED_NODES if renamed_nodes is None else renamed_nodes)}
    known = {key: node for key, node in prompt.items() if _is_node(node)}
    moved = {key: node_by_id[node["class_type"]] for key, node in known.items() if node["class_type"] in node_by_id}
    notes: list[str] = []
    translated = dict(prompt)
    for key, node in known.items():
        new = dict(node)
        rule = moved.get(key)
        if rule is not None:
            new["class_type"] = rule.new
            notes.append(f"node {key}: {rule.old} is now {rule.new}")
        names = {**(rule.inputs if rule else {}), **inputs_by_node.get(new["class_type"], {})}
        where = f"node {key} {new['class_type']}"
        new["inputs"] = _renamed(node["inputs"], names, where, notes)
        new["inputs"] = _rechosen(new["inputs"], choices_by_node.get(new["class_type"], {}), where, notes)
        new["inputs"] = {name: _moved_link(value, moved) for name, value in new["inputs"].items()}
        translated[key] = new
    return (translated, notes) if notes else (prompt, notes)


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _renamed(inputs: dict, names: Mapping[str, str], where: str, notes: list[str]) -> dict:
    """The inputs under their new names. If both names are present a link wins over a value, then new over old."""
    renamed = {name: value for name, value in inputs.items() if name not in names}
    for old, new in names.items():
        if old in inputs:
            notes.append(f"{where}: input {old} is now {new}")
            if new not in renamed or (isinstance(inputs[old], list) and not isinstance(renamed[new], list)):
                renamed[new] = inputs[old]
    return renamed


def _rechosen(inputs: dict, choices: Mapping[str, Mapping[str, str]], where: str, notes: list[str]) -> dict:
    """The inputs with today's names of their choices."""
    chosen = dict(inputs)
    for name, today in choices.items():
        value = inputs.get(name)
        if isinstance(value, str) and value in today:
            notes.append(f"{where}: {name} {value!r} is now {today[value]!r}")
            chosen[name] = today[value]
    return chosen


def _moved_link(value: Any, moved: Mapping[str, RenamedNode]) -> Any:
    """The value; a link to an output that has moved gets its new position."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in moved:
        return [value[0], moved[value[0]].outputs.get(value[1], value[1])]
    return value
