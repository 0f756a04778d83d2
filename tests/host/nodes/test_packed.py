"""The registry's zip, unpacked into the custom_nodes of a ComfyUI with nothing else: it loads, and the quickstart runs.

With comfy-cli on the PATH or at $COMFY_CLI, its `comfy node validate` and `comfy node pack` are run too.
"""

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from packing import ROOT, packed_files, write_zip
from running import NODE_IDS
from server_process import Server
from workflow_api import node_of, to_prompt

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zip")
    write_zip(folder / "node.zip")
    with zipfile.ZipFile(folder / "node.zip") as archive:
        archive.extractall(folder / "gradpaint")
    return folder / "gradpaint"


@pytest.fixture(scope="module")
def packed_server(host_path, unpacked, tmp_path_factory):
    running = Server(host_path, tmp_path_factory.mktemp("packed") / "base", pack=unpacked)
    try:
        yield running.wait()
    finally:
        running.stop()


def test_the_unpacked_zip_passes_its_smoke_test(packed_server):
    object_info = json.loads(packed_server.get("/object_info"))
    ours = {key for key, info in object_info.items() if info["python_module"] == "custom_nodes.gradpaint"}
    assert ours == set(NODE_IDS), packed_server.log()[-3000:]
    for node_id in NODE_IDS:
        assert packed_server.get(f"/extensions/gradpaint/docs/{node_id}.md").startswith(b"# ")
    templates = json.loads(packed_server.get("/workflow_templates"))["gradpaint"]
    assert "gradpaint_quickstart" in templates
    workflow = json.loads(packed_server.get("/api/workflow_templates/gradpaint/gradpaint_quickstart.json"))
    prompt = to_prompt(workflow, object_info)
    prompt[node_of(prompt, "GradPaintKSampler")]["inputs"]["steps"] = 4
    history = packed_server.run(prompt)
    assert history["status"]["status_str"] == "success", history["status"]
    log = packed_server.log()
    assert "Traceback" not in log and "IMPORT FAILED" not in log


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The project's tracked files as a git checkout of their own: comfy-cli writes its zip into the current folder."""
    folder = tmp_path_factory.mktemp("cli") / "gradpaint"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    for name in tracked:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    if not folder.is_dir():
        pytest.skip("comfy-cli packs what git knows: not a git checkout")
    subprocess.run("git init -q && git add -A", shell=True, cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def comfy_cli():
    found = os.environ.get("COMFY_CLI") or shutil.which("comfy")
    if not found:
        pytest.skip("no comfy-cli; pip install it into an environment of its own and set COMFY_CLI to its `comfy`")

    def run(folder: Path, *arguments: str) -> str:
        command = [found, "--skip-prompt", "--no-json", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_comfy_node_validate_is_clean(comfy_cli, checkout):
    said = comfy_cli(checkout, "node", "validate")
    assert "All validation checks passed" in said and "arning" not in said and "rror" not in said, said


def test_comfy_node_pack_makes_the_same_zip(comfy_cli, checkout):
    said = comfy_cli(checkout, "node", "pack")
    assert "arning" not in said, said
    with zipfile.ZipFile(checkout / "node.zip") as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
    assert names == packed_files()
