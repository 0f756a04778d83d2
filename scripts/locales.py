#!/usr/bin/env python3
"""Write locales/en/nodeDefs.json from the nodes' own texts, and say what the translations lack.

    python scripts/locales.py [--check]

--check writes nothing and fails where English is not current or a translation is incomplete. The form is that of
ComfyUI's frontend: {node id: {display_name, description, inputs: {id: {name, tooltip}}, outputs: {place: {name,
tooltip}}}}. Values of combos are not translated: workflows hold them. Needs a ComfyUI, found as the tests find it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCALES = ROOT / "locales"
TRANSLATIONS = ("zh", "fr")
CONTROL = {"name": "control after generate"}  # the frontend's own widget after a seed


def catalogue(schemas: list) -> dict:
    """The English texts of these nodes (comfy_api's Schema objects)."""
    return {schema.node_id: _node(schema) for schema in schemas}


def _node(schema) -> dict:
    inputs = {}
    for given in schema.inputs:
        inputs[given.id] = {"name": given.display_name or given.id, "tooltip": given.tooltip}
        if getattr(given, "control_after_generate", None):
            inputs["control_after_generate"] = dict(CONTROL)
    outputs = {
        str(place): {"name": given.display_name or given.id or given.io_type, "tooltip": given.tooltip}
        for place, given in enumerate(schema.outputs)
    }
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": inputs,
        "outputs": outputs,
    }


def texts(tree: dict, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """{path: text} of a catalogue."""
    flat = {}
    for key, value in tree.items():
        flat.update(texts(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value})
    return flat


def load(language: str, name: str = "nodeDefs") -> dict:
    path = LOCALES / language / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(language: str, tree: dict) -> None:
    path = LOCALES / language / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def gaps(english: dict, translation: dict) -> list[str]:
    """What a translation lacks, has too much, or leaves empty."""
    wanted, given = texts(english), texts(translation)
    return [
        *(f"missing: {'.'.join(path)}: {wanted[path]}" for path in wanted if path not in given),
        *(f"not in English any more: {'.'.join(path)}" for path in given if path not in wanted),
        *(f"empty: {'.'.join(path)}" for path, text in given.items() if not str(text or "").strip()),
    ]


def _schemas() -> list:
    sys.path.insert(0, str(ROOT / "tests" / "host" / "support"))
    import in_host

    host = in_host.find_host()
    if host is None:
        sys.exit("no ComfyUI found; set COMFYUI_PATH")
    in_host.import_host(host)
    return [node.GET_SCHEMA() for node in in_host.our_nodes(in_host.import_pack()).values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where something is to be done")
    check = parser.parse_args().check
    english, before = catalogue(_schemas()), texts(load("en"))
    now = texts(english)
    changed = [path for path in now if now[path] != before.get(path)] + [path for path in before if path not in now]
    for path in changed:
        print(f"en: {'.'.join(path)}: {before.get(path)!r} -> {now.get(path)!r}; translate it anew")
    missing = [f"{language}: {gap}" for language in TRANSLATIONS for gap in gaps(english, load(language))]
    print("\n".join(missing))
    if check:
        sys.exit(1 if changed or missing else 0)
    save("en", english)
    print(f"locales/en/nodeDefs.json: {len(english)} nodes, {len(now)} texts")


if __name__ == "__main__":
    main()
