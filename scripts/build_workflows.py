"""Writes example_workflows/*.json and subgraphs/*.json from scripts/workflows, with a running server's /object_info.

    python scripts/build_workflows.py [--server http://127.0.0.1:8188] [--check]

Use a server of the version in HOST: others have other inputs. The same nodes give the same bytes. --check writes
nothing and fails if a file differs from what would be written.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.workflows import blueprint, demos, families, special  # noqa: E402

HOST = "0.29.0"  # the files are this ComfyUI's; they open in others too


def built(info: Mapping) -> dict[str, str]:
    """{path below the pack: the file's text}."""
    workflows = [
        demos.quickstart(info),
        *(families.build(family, info) for family in families.FAMILIES),
        *(make(info) for make in (demos.compare_methods, demos.batch, demos.report, *special.ALL)),
    ]
    names = [
        "gradpaint_quickstart",
        *(family.name for family in families.FAMILIES),
        "gradpaint_compare_methods",
        "gradpaint_batch",
        "gradpaint_report",
        *special.NAMES,
    ]
    files = {f"example_workflows/{name}.json": workflow for name, workflow in zip(names, workflows, strict=True)}
    files[f"subgraphs/{blueprint.NAME}.json"] = blueprint.build(info)
    return {path: json.dumps(workflow, indent=1, ensure_ascii=False) + "\n" for path, workflow in files.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with urllib.request.urlopen(f"{arguments.server}/object_info", timeout=60) as reply:
        info = json.load(reply)
    changed = [
        path
        for path, text in built(info).items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != text
    ]
    if not arguments.check:
        for path, text in built(info).items():
            (ROOT / path).parent.mkdir(exist_ok=True)
            (ROOT / path).write_text(text, encoding="utf-8")
    print("\n".join(changed) or "all files are as built")
    return int(arguments.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
