"""From a workflow as the frontend saves it to the prompt that the server takes, with the server's /object_info."""
from __future__ import annotations

NOTES = ("Note", "MarkdownNote")
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def is_widget(spec) -> bool:
    """Whether an input of /object_info is a widget (a list of choices is the older form of COMBO)."""
    options = spec[1] if len(spec) > 1 else {}
    return (isinstance(spec[0], list) or spec[0] in WIDGET_TYPES) and not options.get("forceInput")


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """{node id: {"class_type", "inputs"}}. ValueError if the values or links don't fit the node's inputs."""
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
    found = [key for key, node in prompt.items() if node["class_type"] == class_type]
    assert len(found) == 1, f"{class_type}: {found}"
    return found[0]
