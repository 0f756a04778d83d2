"""Finds the real ComfyUI and imports the pack into it as ComfyUI does. Without one, host tests skip and say why.

The host is looked for at $COMFYUI_PATH (set but empty: none), above this folder (a pack in custom_nodes), ~/ComfyUI and
~/comfy/ComfyUI. Test files import nothing of the host at their top: `comfy` comes with the fixtures.

The pack, as the host imports it, is a package of its own: its `gradpaint` is not the top-level `gradpaint` of the
library tests, and objects of one are no instances of the other. Host tests take everything from `pack`.
"""
from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
from server_process import PACK_ROOT, Server
from workflow_api import to_prompt

WORKFLOW = PACK_ROOT / "example_workflows" / "gradpaint_quickstart.json"


def find_host() -> Path | None:
    """The ComfyUI to test in. An explicit path that holds none is an error, not a reason to skip."""
    explicit = os.environ.get("COMFYUI_PATH")
    if explicit is not None:
        if not explicit:
            return None
        path = Path(explicit).expanduser().resolve()
        if not _is_host(path):
            raise pytest.UsageError(f"COMFYUI_PATH is {explicit!r}, but there is no ComfyUI (no comfy/, no nodes.py)")
        return path
    candidates = [*PACK_ROOT.parents, Path.home() / "ComfyUI", Path.home() / "comfy" / "ComfyUI"]
    return next((path.resolve() for path in candidates if _is_host(path)), None)


def _is_host(path: Path) -> bool:
    return (path / "nodes.py").is_file() and (path / "comfy").is_dir()


@pytest.fixture(scope="session")
def host_path() -> Path:
    """The host's folder; its requirements are known to be installed."""
    path = find_host()
    if path is None:
        pytest.skip("no ComfyUI found; set COMFYUI_PATH to run the tests of the nodes against a real one")
    missing = [name for name in ("aiohttp", "comfy_kitchen", "torchsde", "transformers", "yaml")
               if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"ComfyUI is at {path}, but this Python lacks its requirements ({', '.join(missing)}); "
              f"pip install -r {path / 'requirements.txt'}")
    return path


@pytest.fixture(scope="session")
def comfy_host(host_path, tmp_path_factory):
    """The host's `nodes` module, on the CPU, its output and temp folders out of the way."""
    # pytest.ini puts the pack root on sys.path, where our nodes/ would hide the host's nodes.py: the host goes first.
    sys.path.insert(0, str(host_path))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True  # before anything else of comfy asks for a device
    import folder_paths

    import nodes

    assert Path(nodes.__file__).resolve() == host_path / "nodes.py"
    scratch = tmp_path_factory.mktemp("host")
    folder_paths.set_output_directory(str(scratch / "output"))
    folder_paths.set_temp_directory(str(scratch / "temp"))
    return nodes


@pytest.fixture(scope="session")
def pack(comfy_host):
    """The pack's root module, imported under a name of its own as ComfyUI does, with `.nodes` and `.gradpaint`."""
    name = str(PACK_ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, PACK_ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    for part in ("settings", "schedule", "samplers", "masks", "scenes", "guided_diffusion"):
        importlib.import_module(f"{name}.gradpaint.{part}")
    importlib.import_module(f"{name}.nodes").all_nodes()  # and with them all of nodes/host
    return module


@pytest.fixture(scope="session")
def pack_nodes(pack) -> dict:
    """The pack's node classes by node_id, through `comfy_entrypoint`."""
    async def node_list():
        extension = await pack.comfy_entrypoint()
        return await extension.get_node_list()

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(node_list())}


# ---- the real server, started once for all tests that use it


@pytest.fixture(scope="session")
def server(host_path, tmp_path_factory):
    running = Server(host_path, tmp_path_factory.mktemp("server") / "base")
    try:
        yield running.wait()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def object_info(server) -> dict:
    return json.loads(server.get("/object_info"))


@pytest.fixture(scope="session")
def prompt(object_info) -> dict:
    """The quickstart workflow as the server takes it."""
    return to_prompt(json.loads(WORKFLOW.read_text()), object_info)


@pytest.fixture(scope="session")
def tools(pack):
    """Modules of the pack."""
    module = lambda name: importlib.import_module(f"{pack.__name__}.{name}")  # noqa: E731

    class Tools:
        attention, autograd = module("nodes.host.attention"), module("nodes.host.autograd")
        guidance, run, settings = module("nodes.host.guidance"), module("nodes.host.run"), module("gradpaint.settings")

    return Tools
