"""What `comfy node pack` puts into the registry's zip, without comfy-cli: the files git knows, less .comfyignore."""

from __future__ import annotations

import subprocess
import zipfile
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def packed_files(root: Path = ROOT) -> list[str]:
    """Paths below it. Outside a git checkout: every file that .gitignore lets pass (pip leaves a build/ there)."""
    listed = _git(root, "ls-files", "-z")
    if listed and Path(_git(root, "rev-parse", "--show-toplevel").strip()) == root:
        names = [name for name in listed.split("\0") if name and (root / name).exists()]
    else:
        rules = _lines(root / ".gitignore")
        files = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
        names = [path.as_posix() for path in files if path.parts[0] != ".git" and not _git_ignores(path, rules)]
    ignored = ignore_rules(root)
    return sorted(name for name in names if not any(name == rule or name.startswith(f"{rule}/") for rule in ignored))


def _git_ignores(path: Path, rules: list[str]) -> bool:
    """Rules with a leading slash name a path from the root, the others any part of a path."""
    return any(
        path.as_posix().startswith(rule[1:])
        if rule.startswith("/")
        else any(fnmatch(part, rule.rstrip("/")) for part in path.parts)
        for rule in rules
    )


def _git(root: Path, *arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return ""


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def ignore_rules(root: Path = ROOT) -> list[str]:
    """Files and folders that .comfyignore leaves out. ValueError: a rule of another kind than the plain ones we use."""
    rules = _lines(root / ".comfyignore")
    for rule in rules:
        if not rule.startswith("/") or set(rule) & set("*?[!"):
            raise ValueError(f".comfyignore: {rule!r} is no plain path from the root, e.g. /docs/")
    return [rule.strip("/") for rule in rules]


def write_zip(path: Path) -> None:
    """The zip itself."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in packed_files():
            archive.write(ROOT / name, name)


def python_files() -> list[Path]:
    """Every Python file of the project, built and generated folders left out."""
    skipped = {"build", "dist", "out", "demo"}
    files = [
        path
        for path in ROOT.rglob("*.py")
        if not any(part.startswith(".") or part in skipped for part in path.relative_to(ROOT).parts)
    ]
    assert len(files) > 100
    return files
