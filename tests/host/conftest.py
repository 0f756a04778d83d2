"""Finds the real ComfyUI and imports the pack into it as ComfyUI does. Without one, host tests skip and say why.

Where it is looked for: `in_host`. Test files import nothing of the host at their top: `comfy` comes with the fixtures.

The pack, as the host imports it, is a package of its own: its `gradpaint` is not the top-level `gradpaint` of the
library tests, and objects of one are no instances of the other. Host tests take everything from `pack`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import in_host
import pytest
from server_process import PACK_ROOT, Server
from workflow_api import to_prompt

# What these are about came to ComfyUI after our floor: weight formats, loaders, guiders.
NEEDS = {
    "test_weights.py": ("[int8", "[int4", "test_mixture_of_experts"),
    "test_offload.py": ("test_dynamic_vram",),
    "test_speed_options.py": ("dual_model",),
    "test_families.py": ("larger_seedvr2",),
}
KNOWN_IN = (0, 29)

WORKFLOW = PACK_ROOT / "example_workflows" / "gradpaint_quickstart.json"


def pytest_collection_modifyitems(items):
    """Older hosts skip what they do not know, and say so."""
    try:
        host = in_host.find_host()
    except ValueError:
        return  # `host_path` reports it
    if host is None or in_host.host_version(host) >= KNOWN_IN:
        return
    known_in = ".".join(map(str, KNOWN_IN))
    skip = pytest.mark.skip(reason=f"{host} is older than ComfyUI {known_in} and lacks what this is about")
    for item in items:
        if any(part in item.name for part in NEEDS.get(item.path.name, ())):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def host_path() -> Path:
    """The host's folder; its requirements are known to be installed."""
    try:
        path = in_host.find_host()
    except ValueError as error:  # an explicit path that holds no host is an error, not a reason to skip
        raise pytest.UsageError(str(error)) from error
    if path is None:
        pytest.skip("no ComfyUI found; set COMFYUI_PATH to run the tests of the nodes against a real one")
    missing = in_host.missing_requirements()
    if missing:
        pytest.skip(
            f"ComfyUI is at {path}, but this Python lacks its requirements ({', '.join(missing)}); "
            f"pip install -r {path / 'requirements.txt'}"
        )
    return path


@pytest.fixture(scope="session")
def comfy_host(host_path, tmp_path_factory):
    """The host's `nodes` module, on the CPU, its output and temp folders out of the way."""
    nodes = in_host.import_host(host_path)
    import folder_paths

    scratch = tmp_path_factory.mktemp("host")
    folder_paths.set_output_directory(str(scratch / "output"))
    folder_paths.set_temp_directory(str(scratch / "temp"))
    return nodes


@pytest.fixture(scope="session")
def pack(comfy_host):
    """The pack's root module, imported under a name of its own as ComfyUI does, with `.nodes` and `.gradpaint`."""
    return in_host.import_pack()


@pytest.fixture(scope="session")
def pack_nodes(pack) -> dict:
    """The pack's node classes by node_id, through `comfy_entrypoint`."""
    return in_host.our_nodes(pack)


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

    def module(name):
        return importlib.import_module(f"{pack.__name__}.{name}")

    class Tools:
        attention, autograd = module("nodes.host.autograd.attention"), module("nodes.host.autograd.bridge")
        guidance, run = module("nodes.host.sampling.wrapper"), module("nodes.host.sampling.run")
        settings = module("gradpaint.method.settings")

    Tools.module = staticmethod(module)
    return Tools
