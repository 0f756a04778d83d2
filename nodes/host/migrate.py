"""Tells the host about `nodes.migrations`: old prompts are translated before it checks them, old graphs when opened."""

from __future__ import annotations

import logging
import sys

from .. import migrations

log = logging.getLogger(__name__)


def on_prompt(data: dict) -> dict:
    """A handler of the host's server: what was posted to /prompt, with today's names in its prompt."""
    prompt = data.get("prompt") if isinstance(data, dict) else None
    if not isinstance(prompt, dict):
        return data
    prompt, notes = migrations.migrate(prompt)
    for note in notes:
        log.info("GradPaint: this workflow is from an older version; %s", note)
    return {**data, "prompt": prompt} if notes else data


async def register() -> None:
    """Once, when the pack is loaded. Without a running server (tests, scripts) there is nothing to do."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None:
        return
    handlers = getattr(server, "on_prompt_handlers", ())
    if not any(getattr(handler, "__module__", None) == __name__ for handler in handlers):  # the pack loaded twice
        server.add_on_prompt_handler(on_prompt)
    await _register_nodes()


async def _register_nodes() -> None:
    """The frontend offers to replace renamed nodes in graphs that it opens, where the host can tell it about them.

    The host would replace them in prompts too, but `on_prompt` comes first: the host's way fails where an optional
    input is not given.
    """
    from comfy_api.latest import ComfyAPI, io

    replacement = getattr(ComfyAPI(), "node_replacement", None)
    if replacement is None or not hasattr(io, "NodeReplace"):
        return
    for rule in migrations.RENAMED_NODES:
        await replacement.register(_replacement(io, rule))


def _replacement(io, rule: migrations.RenamedNode):
    """The host's form of a rule: it wants every input and output that is to be kept."""
    schema = _schema(rule.new)
    kept = [given.id for given in schema.inputs if given.id not in rule.inputs.values()]
    names = {**{name: name for name in kept}, **rule.inputs}
    places = {place: rule.outputs.get(place, place) for place in range(len(schema.outputs))}
    return io.NodeReplace(
        new_node_id=rule.new,
        old_node_id=rule.old,
        old_widget_ids=list(rule.widgets),
        input_mapping=[{"new_id": new, "old_id": old} for old, new in names.items()],
        output_mapping=[{"new_idx": new, "old_idx": old} for old, new in places.items()],
    )


def _schema(node_id: str):
    from .. import all_nodes

    return next(schema for schema in (node.GET_SCHEMA() for node in all_nodes()) if schema.node_id == node_id)
