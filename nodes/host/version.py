"""Which ComfyUI is around us, and how we lie in it. Imports nothing of it, so this works in any version and without
one.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

MINIMUM = (0, 18, 1)


def parse_version(text: str) -> tuple[int, ...] | None:
    """The leading numbers of a version: "v0.29.0-3-gabc" -> (0, 29, 0). None if there are none."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in match.group(1).split(".")) if match else None


def host_version() -> str | None:
    """ComfyUI's version, "unknown" for one that does not tell, None where no ComfyUI is running."""
    if "comfy" not in sys.modules and "comfyui_version" not in sys.modules:
        return None
    try:
        return str(importlib.import_module("comfyui_version").__version__)
    except (ImportError, AttributeError):
        return "unknown"


def version_problem(found: str | None) -> str | None:
    """One line for the log if `found` is too old for the pack, else None. Source builds without a number pass."""
    if found is None:
        return None
    wanted = ".".join(map(str, MINIMUM))
    numbers = parse_version(found)
    if found == "unknown" or (numbers is not None and numbers < MINIMUM):
        return (
            f"GradPaint needs ComfyUI {wanted} or newer, but this is {found}: its nodes are not loaded. "
            "Update ComfyUI and restart it."
        )
    return None


def host_problem() -> str | None:
    """`version_problem` of the ComfyUI that is importing us."""
    return version_problem(host_version())


def install_problems(package: str, modules: Iterable[str] = ()) -> list[str]:
    """What is odd about our place, a line each. package: our name in `modules`, both from ComfyUI: it is our folder."""
    plain = lambda given: given.replace("_x_", ".")
    name = Path(plain(package)).name
    problems = []
    if not re.fullmatch(r"[\w()-]+", name, re.ASCII):
        problems.append(
            f"GradPaint is in a folder named {name!r}. Its nodes work, but ComfyUI does not find the help "
            "pages, and not always the example workflows, of folders with spaces, dots or letters beyond "
            "a-z in their names: rename it to gradpaint and restart ComfyUI."
        )
    own = ".nodes.host.version"
    others = [plain(other.removesuffix(own)) for other in modules if other.endswith(own) and other != package + own]
    if others:
        problems.append(
            f"GradPaint is installed more than once: in {', '.join(sorted(others))} and in "
            f"{plain(package)}. ComfyUI uses the nodes of the last one that it loaded; remove all but one "
            "and restart it."
        )
    return problems
