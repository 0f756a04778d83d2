"""Checks the version of the ComfyUI that loads the pack, and where the pack is installed.

Imports nothing of ComfyUI, so it works in any version, and without one.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

MINIMUM = (0, 18, 1)


def parse_version(text: str) -> tuple[int, ...] | None:
    """Return the leading numbers of a version, None if there are none: "v0.29.0-3-gabc" -> (0, 29, 0)."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in match.group(1).split(".")) if match else None


def host_version() -> str | None:
    """Return ComfyUI's version, "unknown" if it doesn't report one, None outside of ComfyUI."""
    if "comfy" not in sys.modules and "comfyui_version" not in sys.modules:
        return None
    try:
        return str(importlib.import_module("comfyui_version").__version__)
    except (ImportError, AttributeError):
        return "unknown"


def version_problem(version: str | None) -> str | None:
    """Return one line for the log if the version is too old for the pack; source builds without a number pass."""
    if version is None:
        return None
    numbers = parse_version(version)
    if version == "unknown" or (numbers is not None and numbers < MINIMUM):
        return (
            f"GradPaint needs ComfyUI {'.'.join(map(str, MINIMUM))} or newer, but this is {version}, so its nodes are "
            "not loaded. Update ComfyUI and restart it."
        )
    return None


def host_problem() -> str | None:
    """Return the `version_problem` of the ComfyUI that is importing the pack."""
    return version_problem(host_version())


def install_problems(package: str, modules: Iterable[str] = ()) -> list[str]:
    """Return one line for the log per problem with how the pack is installed.

    Args:
        package: the name under which ComfyUI imported the pack: its folder, with dots replaced.
        modules: the names of all loaded modules.
    """
    folder_of = lambda module: module.replace("_x_", ".")
    name = Path(folder_of(package)).name
    problems = []
    if not re.fullmatch(r"[\w()-]+", name, re.ASCII):
        problems.append(
            f"GradPaint is in a folder named {name!r}. Its nodes work, but if a folder's name contains spaces, dots or "
            "letters other than a-z, ComfyUI can't find its help pages, and sometimes not its example workflows: "
            "rename it to gradpaint and restart ComfyUI."
        )
    this = ".nodes.host.version"
    others = [folder_of(m.removesuffix(this)) for m in modules if m.endswith(this) and m != package + this]
    if others:
        problems.append(
            f"GradPaint is installed more than once: in {', '.join(sorted(others))} and in "
            f"{folder_of(package)}. ComfyUI uses the nodes of the copy it loaded last: remove all but one "
            "and restart it."
        )
    return problems
