#!/usr/bin/env python3
"""Write tests/host/object_info.json anew: what saved workflows depend on in our nodes.

    python scripts/object_info.py [--breaking]

Run after a node's inputs or outputs were changed on purpose. Says what has changed, and refuses changes that break
saved workflows, unless --breaking (before a new major version). Needs a ComfyUI, found as the tests find it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "host" / "support"))


def infos() -> tuple[dict, object]:
    """Our nodes as the host describes them, and the module of migrations."""
    import importlib

    import in_host

    host = in_host.find_host()
    if host is None:
        sys.exit("no ComfyUI found; set COMFYUI_PATH")
    in_host.import_host(host)
    pack = in_host.import_pack()
    schemas = {node_id: node.GET_NODE_INFO_V1() for node_id, node in in_host.our_nodes(pack).items()}
    return schemas, importlib.import_module(f"{pack.__name__}.nodes.migrations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--breaking", action="store_true", help="write it even if saved workflows break")
    allowed = parser.parse_args().breaking
    from schema_changes import SNAPSHOT, breaking, changed_defaults, load, save, snapshot

    schemas, migrations = infos()
    new = snapshot(schemas)
    old = load() if SNAPSHOT.exists() else {}
    problems = breaking(old, new, migrations.RENAMED_INPUTS, migrations.RENAMED_NODES, migrations.RENAMED_CHOICES)
    for text in [*problems, *changed_defaults(old, new, migrations.RENAMED_CHOICES)]:
        print(text)
    if problems and not allowed:
        sys.exit("not written: saved workflows would break (see CONTRIBUTING.md; --breaking writes it anyway)")
    save(new)
    print(f"{SNAPSHOT.relative_to(ROOT)}: {len(new)} nodes")


if __name__ == "__main__":
    main()
