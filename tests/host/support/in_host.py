"""Finds ComfyUI, and imports the pack into it as ComfyUI does: for host tests and benchmarks.

The host is looked for at $COMFYUI_PATH (set but empty: none), above this folder (a pack in custom_nodes), ~/ComfyUI and
~/comfy/ComfyUI.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

PACK_ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = ("aiohttp", "comfy_kitchen", "torchsde", "transformers", "yaml")


def find_host() -> Path | None:
    """The folder of ComfyUI, None if there is none. ValueError: $COMFYUI_PATH names a folder without one."""
    explicit = os.environ.get("COMFYUI_PATH")
    if explicit is not None:
        if not explicit:
            return None
        path = Path(explicit).expanduser().resolve()
        if not _is_host(path):
            raise ValueError(f"COMFYUI_PATH is {explicit!r}, but there is no ComfyUI (no comfy/, no nodes.py)")
        return path
    candidates = [*PACK_ROOT.parents, Path.home() / "ComfyUI", Path.home() / "comfy" / "ComfyUI"]
    return next((path.resolve() for path in candidates if _is_host(path)), None)


def _is_host(path: Path) -> bool:
    return (path / "nodes.py").is_file() and (path / "comfy").is_dir()


def host_version(path: Path) -> tuple[int, ...]:
    """(0, 29, 0)."""
    text = (path / "comfyui_version.py").read_text()
    return tuple(int(number) for number in re.findall(r"\d+", text.split("__version__")[1]))


def missing_requirements() -> list[str]:
    """Packages that the host needs and this Python lacks."""
    return [name for name in REQUIREMENTS if importlib.util.find_spec(name) is None]


def import_host(path: Path, cpu: bool = True) -> ModuleType:
    """The host's `nodes` module. cpu: whatever the machine has, the host sees the CPU only."""
    # Where the pack root is on sys.path (pytest.ini), our nodes/ would hide the host's nodes.py: the host goes first.
    sys.path.insert(0, str(path))
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu  # before anything else of comfy asks for a device
    importlib.import_module("utils.extra_config")  # as main.py does: older nodes.py puts a folder with a utils.py first
    import nodes

    assert Path(nodes.__file__).resolve() == path / "nodes.py"
    return nodes


def our_nodes(pack: ModuleType) -> dict[str, type]:
    """The pack's node classes by node_id, as the host asks for them."""

    async def nodes():
        return await (await pack.comfy_entrypoint()).get_node_list()

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(nodes())}


def import_pack() -> ModuleType:
    """The pack's root module, imported under a name of its own as ComfyUI does, with `.nodes` and `.gradpaint`."""
    name = str(PACK_ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, PACK_ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    for part in ("method.settings", "method.plan", "sampling.inpaint", "masks", "models.scenes", "guided_diffusion"):
        importlib.import_module(f"{name}.gradpaint.{part}")
    importlib.import_module(f"{name}.nodes").all_nodes()  # and with them all of nodes/host
    return module
