"""GradPaint for ComfyUI. This file only composes: the nodes are in `nodes/`, the method itself in `gradpaint/`.

Nothing of ComfyUI is imported until ComfyUI asks for the nodes, so this file can be imported without it.
NODE_CLASS_MAPPINGS must stay absent: if it exists, even if empty, ComfyUI does not call `comfy_entrypoint`.
"""

import logging
import sys
from typing import Any

from .nodes.host.version import host_problem, install_problems

WEB_DIRECTORY = "./web"

log = logging.getLogger(__name__)
_problem = host_problem()
if _problem:
    log.error(_problem)


async def comfy_entrypoint() -> Any:
    """Return the extension with the pack's nodes, or without any if ComfyUI is too old. Called by ComfyUI."""
    from comfy_api.latest import ComfyExtension

    class GradPaintExtension(ComfyExtension):
        async def on_load(self) -> None:
            if not _problem:
                for text in install_problems(__name__, tuple(sys.modules)):
                    log.warning(text)
                from .nodes.host.migrate import register

                await register()

        async def get_node_list(self) -> list[type]:
            if _problem:
                return []
            from .nodes import all_nodes

            return all_nodes()

    return GradPaintExtension()
