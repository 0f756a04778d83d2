"""Who may import whom: no circles of rooms, no ComfyUI in the library, nothing else of ours in the method."""

import subprocess
import sys

import pytest
from packing import ROOT

from scripts.import_graph import Imports, circles, floors, imports, report, room_of, sources

# Rooms that import each other today. The list only gets shorter: a circle that is gone fails the test too.
KNOWN_CIRCLES = [
    ["gradpaint/method", "gradpaint/method/losses"],
    ["gradpaint/sampling", "gradpaint/sampling/baselines"],
    ["nodes", "nodes/host"],
]
HOST = set("comfy comfy_execution comfy_extras execution folder_paths latent_preview node_helpers server".split())


@pytest.fixture(scope="module")
def graph() -> Imports:
    return imports(sources())


def test_no_circles(graph):
    assert len(graph.rooms()) > 10 and len(graph.modules) > 100
    assert circles(graph.rooms()) == KNOWN_CIRCLES
    assert circles(graph.modules) == []


def test_the_library_knows_no_host(graph):
    library = [file for file in graph.modules if file.startswith("gradpaint/")]
    assert [f for f in library if any(name in HOST or name.startswith("comfy") for name in graph.outside[f])] == []
    assert [f for f in library if any(not target.startswith("gradpaint/") for target in graph.modules[f])] == []


def test_the_method_imports_nothing_else_of_ours(graph):
    method = {file: targets for file, targets in graph.modules.items() if file.startswith("gradpaint/method/")}
    assert len(method) > 5
    assert {target for targets in method.values() for target in targets} <= set(method)


def test_only_the_hosts_rooms_touch_comfyui(graph):
    """The nodes themselves use its public API, comfy_api."""
    touching = {file for file, names in graph.outside.items() if names & HOST}
    assert {file for file in touching if not file.startswith("nodes/host/")} == set()
    assert len(touching) > 5  # else nothing was checked


# ---- the script itself


PACK = {
    "__init__.py": "from .nodes import a",
    "nodes/__init__.py": "",
    "nodes/a.py": "from ..gradpaint.method import step as walk, VALUE\nimport comfy.utils\nfrom .host import b",
    "nodes/host/__init__.py": "",
    "nodes/host/b.py": "def late():\n    from ...gradpaint.method.step import f\n",
    "gradpaint/method/__init__.py": "VALUE = 1",
    "gradpaint/method/step.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ...nodes import a\n",
}


def test_imports_of_every_form_are_seen():
    graph = imports(PACK)
    assert graph.modules == {
        "__init__.py": {"nodes/a.py"},
        "nodes/__init__.py": set(),
        "nodes/a.py": {"gradpaint/method/step.py", "gradpaint/method/__init__.py", "nodes/host/b.py"},
        "nodes/host/__init__.py": set(),
        "nodes/host/b.py": {"gradpaint/method/step.py"},
        "gradpaint/method/__init__.py": set(),
        "gradpaint/method/step.py": set(),
    }
    assert graph.outside["nodes/a.py"] == {"comfy"} and room_of("__init__.py") == "."
    assert graph.rooms()["nodes"] == {"gradpaint/method", "nodes/host"}
    assert floors(graph.rooms()) == {".": 3, "nodes": 2, "nodes/host": 1, "gradpaint/method": 0}
    assert circles(graph.rooms()) == []


def test_a_circle_is_named():
    graph = imports({**PACK, "gradpaint/method/step.py": "from ...nodes.host import b"})
    assert circles(graph.rooms()) == [["gradpaint/method", "nodes/host"]]
    assert circles(graph.modules) == [["gradpaint/method/step.py", "nodes/host/b.py"]]
    text = report(graph, with_modules=True)
    assert text.startswith("4 rooms, 7 modules, 3 floors, 5 arrows between rooms (6 imports)\n")
    assert "circles of rooms: 1\n  gradpaint/method, nodes/host\n" in text and "  step -> b" in text


def test_it_runs_from_the_command_line():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "import_graph.py"], capture_output=True, text=True)
    assert done.returncode == 0 and "arrows between rooms" in done.stdout.splitlines()[0], done.stderr
