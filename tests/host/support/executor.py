"""The host's own executor in this process: validates a prompt and runs it, as the server does, without a server."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path

import torch

# Files of comfy_extras with nodes that the example workflows use: importing all of them takes long.
EXTRAS = ("nodes_custom_sampler", "nodes_model_advanced", "nodes_flux", "nodes_video", "nodes_images", "nodes_cond")


class NoServer:
    """What the executor asks of a server: somewhere to send messages."""

    client_id = None
    last_node_id = None

    def send_sync(self, event, data, sid=None) -> None:
        pass


class Catch:
    """An output node that keeps what it gets: {id of the node: tensor}."""

    CAUGHT: dict = {}
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "keep", True, "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",)}, "hidden": {"unique_id": "UNIQUE_ID"}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def keep(self, value, unique_id):
        self.CAUGHT[unique_id] = value
        return ()


def register(host_nodes, host_path: Path, pack_nodes: dict) -> None:
    """Puts the extra nodes and the pack's into the host's list of nodes."""

    async def load():
        for name in EXTRAS:
            path = str(host_path / "comfy_extras" / f"{name}.py")
            assert await host_nodes.load_custom_node(path, module_parent="comfy_extras"), name

    asyncio.run(load())
    for node_id, node in pack_nodes.items():
        host_nodes.NODE_CLASS_MAPPINGS[node_id] = node
        node.RELATIVE_PYTHON_MODULE = "custom_nodes.gradpaint"
    host_nodes.NODE_CLASS_MAPPINGS["Catch"] = Catch


def object_info(host_nodes) -> dict:
    """What GET /object_info answers, as far as workflows need it."""
    info = {}
    for node_id, node in host_nodes.NODE_CLASS_MAPPINGS.items():
        if hasattr(node, "GET_NODE_INFO_V1"):
            info[node_id] = node.GET_NODE_INFO_V1()
        else:
            info[node_id] = {
                "input": node.INPUT_TYPES(),
                "output": node.RETURN_TYPES,
                "output_name": getattr(node, "RETURN_NAMES", node.RETURN_TYPES),
            }
    return json.loads(json.dumps(info))


def run(prompt: dict) -> dict[str, torch.Tensor]:
    """What the prompt's Catch nodes got. AssertionError, with the host's reason, if it is refused or fails."""
    execution = importlib.import_module("execution")
    Catch.CAUGHT.clear()
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("test", prompt, None))
    assert valid and not node_errors, (error, node_errors)
    executor = execution.PromptExecutor(
        NoServer(), cache_type=execution.CacheType.CLASSIC, cache_args={"lru": 0, "ram": 0, "ram_inactive": 0}
    )
    executor.execute(prompt, "test", execute_outputs=outputs)
    failed = [data for event, data in executor.status_messages if event == "execution_error"]
    assert executor.success and not failed, failed and (
        failed[0]["node_type"],
        failed[0]["exception_message"],
        "".join(failed[0]["traceback"]),
    )
    return dict(Catch.CAUGHT)
