"""Hooks `nodes.migrations` into the host: translates old prompts before they are checked, old graphs when opened."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from .. import migrations

if TYPE_CHECKING:
    from comfy_api.latest import io

log = logging.getLogger(__name__)


def on_prompt(data: dict) -> dict:
    """Handle a POST to /prompt for the host's server: return its data with current names in the prompt."""
    prompt = data.get("prompt") if isinstance(data, dict) else None
    if not isinstance(prompt, dict):
        return data
    prompt, notes = migrations.migrate(prompt)
    for note in notes:
        log.info("GradPaint: this workflow is from an older version; %s", note)
    return {**data, "prompt": prompt} if notes else data


async def register() -> None:
    """Register with the host when the pack is loaded; without a running server (tests, scripts) there is no need."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None:
        return
    handlers = getattr(server, "on_prompt_handlers", ())
    if not any(getattr(handler, "__module__", None) == __name__ for handler in handlers):  # the pack was loaded twice
        server.add_on_prompt_handler(on_prompt)
    await _register_nodes()


async def _register_nodes() -> None:
    """Tell the frontend which nodes were renamed, so that it offers to replace them in graphs it opens.

    The host would replace them in prompts too, but `on_prompt` comes first: the host's replacement fails if an optional
    input is missing.
    """
    from comfy_api.latest import ComfyAPI, io

    replacement = getattr(ComfyAPI(), "node_replacement", None)
    if replacement is None or not hasattr(io, "NodeReplace"):
        return
    for rule in migrations.RENAMED_NODES:
        await replacement.register(_replacement(rule))


def _replacement(rule: migrations.RenamedNode) -> io.NodeReplace:
    """The rule in the host's form, which has to list every input and output that is kept."""
    from comfy_api.latest import io

    schema = _schema(rule.new)
    kept = [item.id for item in schema.inputs if item.id not in rule.inputs.values()]
    names = {**{name: name for name in kept}, **rule.inputs}
    places = {place: rule.outputs.get(place, place) for place in range(len(schema.outputs))}
    return io.NodeReplace(
        new_node_id=rule.new,
        old_node_id=rule.old,
        old_widget_ids=list(rule.widgets),
        input_mapping=[{"new_id": new, "old_id": old} for old, new in names.items()],
        output_mapping=[{"new_idx": new, "old_idx": old} for old, new in places.items()],
    )


def _schema(node_id: str) -> io.Schema:
    from .. import all_nodes

    nodes: list[Any] = all_nodes()
    return next(schema for schema in (node.GET_SCHEMA() for node in nodes) if schema.node_id == node_id)
