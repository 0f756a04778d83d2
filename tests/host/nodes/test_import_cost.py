"""Loading the pack is cheap: it takes under half a second and brings in no package that ComfyUI had not loaded.

`benchmarks/import_time.py` measures the same at whole servers.
"""

import json
import subprocess
import sys
from pathlib import Path

PACK_ROOT = Path(__file__).resolve().parents[3]
LIMIT = 0.5  # seconds of processor time

# In a process of its own: here everything has been imported already.
LOAD = """
import asyncio, importlib.util, json, sys, time
sys.path.insert(0, sys.argv[2])
import in_host
in_host.import_host(in_host.find_host())
before, began = set(sys.modules), time.process_time()
spec = importlib.util.spec_from_file_location("the_pack", sys.argv[1] + "/__init__.py")
pack = sys.modules["the_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)

async def load():
    extension = await pack.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA().node_id for node in await extension.get_node_list()]

nodes = asyncio.run(load())
seconds = time.process_time() - began
modules = sorted(name for name in set(sys.modules) - before if name.split(".")[0] != "the_pack")
print("FOUND" + json.dumps([nodes, seconds, modules]))
"""


def test_loading_the_pack_is_cheap(host_path, capsys):
    command = [sys.executable, "-c", LOAD, str(PACK_ROOT), str(PACK_ROOT / "tests" / "host" / "support")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr[-3000:]
    nodes, seconds, modules = json.loads(done.stdout.split("FOUND")[1])
    assert len(nodes) >= 15
    foreign = [name for name in modules if name.split(".")[0] not in {*sys.stdlib_module_names, "comfyui_version"}]
    with capsys.disabled():
        print(f"\nloading the pack: {seconds:.2f} s of processor time, {len(modules)} modules besides its own")
    assert foreign == [], "imported where it is not needed yet; import it in the function that uses it"
    assert seconds < LIMIT
