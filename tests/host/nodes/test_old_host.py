"""A ComfyUI below our floor: one clear line in its log, no traceback, no nodes. And the version rule by itself.

The old host is $COMFYUI_OLD_PATH or ~/ComfyUI-old; without one the test in it skips.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACK_ROOT = Path(__file__).resolve().parents[3]

# Runs in a process of its own, as the old host runs it: two versions of `comfy` do not fit into one.
LOAD = """
import asyncio, logging, sys
sys.path.insert(0, sys.argv[1])
import comfy.cli_args
comfy.cli_args.args.cpu = True
logging.basicConfig(level=logging.INFO, format="%(levelname)s|%(message)s", stream=sys.stdout, force=True)
import nodes
print("BEFORE")
loaded = asyncio.run(nodes.load_custom_node(sys.argv[2]))
print("LOADED", loaded, [name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("GradPaint")])
"""


def version_module():
    path = PACK_ROOT / "nodes" / "host" / "version.py"
    spec = importlib.util.spec_from_file_location("gradpaint_host_version", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def old_host() -> Path:
    path = Path(os.environ.get("COMFYUI_OLD_PATH") or Path.home() / "ComfyUI-old").expanduser()
    if not (path / "nodes.py").is_file():
        pytest.skip("no old ComfyUI (below 0.18.1) at COMFYUI_OLD_PATH or ~/ComfyUI-old")
    return path


@pytest.mark.slow
def test_old_host_gets_one_line_and_no_nodes(host_path, tmp_path):
    (tmp_path / "gradpaint").symlink_to(PACK_ROOT)
    command = [sys.executable, "-c", LOAD, str(old_host()), str(tmp_path / "gradpaint")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.split("BEFORE\n")[1].splitlines()
    assert lines[-1] == "LOADED True []"
    said = [line for line in lines if not line.startswith(("DEBUG", "LOADED"))]
    assert len(said) == 1, said
    assert said[0].startswith("ERROR|GradPaint needs ComfyUI 0.18.1 or newer, but this is 0.3.")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("version", ["0.3.64", "0.18.0", "0.18", "v0.9.2-5-gabcdef", "unknown"])
def test_too_old(version):
    message = version_module().version_problem(version)
    assert "0.18.1" in message and version in message and "\n" not in message


@pytest.mark.parametrize("version", [None, "0.18.1", "0.18.1rc2", "0.29.0", "v1.0", "nightly"])
def test_new_enough(version):
    assert version_module().version_problem(version) is None


def test_the_pack_imports_quietly_without_a_host():
    """As pytest does when it collects the pack's root, and as tools do that only read WEB_DIRECTORY."""
    code = (
        f"import sys, importlib; sys.path.insert(0, {str(PACK_ROOT.parent)!r})\n"
        f"pack = importlib.import_module({PACK_ROOT.name!r})\n"
        "assert 'torch' not in sys.modules and 'comfy' not in sys.modules\n"
        "assert not hasattr(pack, 'NODE_CLASS_MAPPINGS')\n"
        "print(pack.WEB_DIRECTORY, callable(pack.comfy_entrypoint))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACK_ROOT.parent)
    assert (done.stdout.strip(), done.stderr) == ("./web True", "")
