"""From a workflow as the frontend saves it to the prompt that the server takes, with the server's /object_info."""

from __future__ import annotations

import copy

SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = -10, -20  # the frontend's ids of a subgraph's two ends
NOTES = ("Note", "MarkdownNote")
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")


def is_widget(spec) -> bool:
    """Whether an input of /object_info is a widget (a list of choices is the older form of COMBO)."""
    options = spec[1] if len(spec) > 1 else {}
    return (isinstance(spec[0], list) or spec[0] in WIDGET_TYPES) and not options.get("forceInput")


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """{node id: {"class_type", "inputs"}}. ValueError if the values or links don't fit the node's inputs."""
    workflow = flatten(workflow)
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        if node["type"] not in object_info:
            raise ValueError(f"node {node['id']}: the server has no {node['type']}")
        inputs = _inputs(node, object_info[node["type"]], links)
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def flatten(workflow: dict) -> dict:
    """The workflow with its subgraphs unfolded, their nodes named "outer:inner" as the frontend does."""
    definitions = {d["id"]: d for d in workflow.get("definitions", {}).get("subgraphs", ())}
    nodes, links = copy.deepcopy(workflow["nodes"]), {link[0]: list(link) for link in workflow["links"]}
    while any(n["type"] in definitions for n in nodes):
        outer = next(n for n in nodes if n["type"] in definitions)
        nodes.remove(outer)
        nodes += _unfold(outer, definitions[outer["type"]], links)
    return {**workflow, "nodes": nodes, "links": list(links.values())}


def _unfold(outer: dict, definition: dict, links: dict) -> list[dict]:
    """The nodes inside; `links`, {id: link of the outer graph}, gets theirs."""
    name = lambda key: f"{outer['id']}:{key}"
    inner = [
        [x[k] for k in ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")]
        for x in definition["links"]
    ]
    given = [links.get(socket["link"]) for socket in outer["inputs"]]
    nodes = {n["id"]: {**copy.deepcopy(n), "id": name(n["id"])} for n in definition["nodes"]}
    for key, source, slot, target, target_slot, kind in inner:
        if target == SUBGRAPH_OUTPUT:
            for link in links.values():
                if link[1] == outer["id"] and link[2] == target_slot:
                    link[1:3] = name(source), slot
            continue
        if source == SUBGRAPH_INPUT:
            link = given[slot]
            nodes[target]["inputs"][target_slot]["link"] = name(key) if link else None
            if link:
                links[name(key)] = [name(key), *link[1:3], name(target), target_slot, kind]
            continue
        nodes[target]["inputs"][target_slot]["link"] = name(key)
        links[name(key)] = [name(key), name(source), slot, name(target), target_slot, kind]
    return list(nodes.values())


def _inputs(node: dict, info: dict, links: dict) -> dict:
    required = info["input"].get("required", {})
    specs = {**required, **info["input"].get("optional", {})}
    values = iter(node.get("widgets_values", []))
    inputs = {}
    for name, spec in specs.items():
        if is_widget(spec):
            try:
                inputs[name] = next(values)
            except StopIteration:
                if name not in required:
                    break  # saved before the node had this input: the server goes without
                raise ValueError(f"node {node['id']} {node['type']}: no value for {name}") from None
            if len(spec) > 1 and spec[1].get("control_after_generate"):
                control = next(values, None)
                if control not in ("fixed", "increment", "decrement", "randomize"):
                    raise ValueError(f"node {node['id']} {node['type']}: {name} is followed by {control!r}")
    left = list(values)
    if left:
        raise ValueError(f"node {node['id']} {node['type']}: values {left} are left over")
    for socket in node.get("inputs", []):
        if socket.get("link") is not None:
            _, source, slot, target, _, _ = links[socket["link"]]
            name = socket["name"]
            if target != node["id"] or name not in specs:
                raise ValueError(f"node {node['id']} {node['type']}: link {socket['link']} does not fit {name}")
            inputs[name] = [str(source), slot]
    missing = set(required) - set(inputs)
    if missing:
        raise ValueError(f"node {node['id']} {node['type']}: nothing for {', '.join(sorted(missing))}")
    return inputs


def node_of(prompt: dict, class_type: str) -> str:
    """Id of the only node of that type."""
    keys = [key for key, node in prompt.items() if node["class_type"] == class_type]
    assert len(keys) == 1, f"{class_type}: {keys}"
    return keys[0]
