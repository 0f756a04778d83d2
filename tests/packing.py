"""What `comfy node pack` puts into the registry's zip, without comfy-cli: the files git knows, less .comfyignore."""
from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def packed_files() -> list[str]:
    """Paths below ROOT. Outside a git checkout every file counts, except caches and environments."""
    listed = _git("ls-files", "-z")
    if listed and Path(_git("rev-parse", "--show-toplevel").strip()) == ROOT:
        names = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
    else:
        hidden = lambda path: any(part.startswith(".venv") or part == "__pycache__" or part == ".git"  # noqa: E731
                                  for part in path.parts)
        names = [path.as_posix() for path in (file.relative_to(ROOT) for file in ROOT.rglob("*") if file.is_file())
                 if not hidden(path)]
    ignored = ignore_rules()
    return sorted(name for name in names if not any(name == rule or name.startswith(f"{rule}/") for rule in ignored))


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return ""


def ignore_rules() -> list[str]:
    """Files and folders that .comfyignore leaves out. ValueError: a rule of another kind than the plain ones we use."""
    lines = (ROOT / ".comfyignore").read_text().splitlines()
    rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for rule in rules:
        if not rule.startswith("/") or set(rule) & set("*?[!"):
            raise ValueError(f".comfyignore: {rule!r} is no plain path from the root, e.g. /docs/")
    return [rule.strip("/") for rule in rules]


def write_zip(path: Path) -> None:
    """The zip itself."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in packed_files():
            archive.write(ROOT / name, name)
