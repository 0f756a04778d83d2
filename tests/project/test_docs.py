"""What docs/paper.md and docs/architecture.md name exists: files, functions, commands, links."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from gradpaint.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [name for name in ("paper.md", "architecture.md") if (ROOT / "docs" / name).is_file()]
TEXT = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in PAGES}


def names_in(path):
    """Functions, classes, methods and constants of a module, as name or Class.name."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            found |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)} if target else set()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


def references():
    for page, text in TEXT.items():
        for path, name in re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", text):
            yield pytest.param(path, name, id=f"{page}: {path}:{name}")


@pytest.mark.parametrize("path, name", references())
def test_files_and_functions_exist(path, name):
    assert (ROOT / path).is_file()
    assert not name or name in names_in(ROOT / path)


@pytest.mark.parametrize("page", PAGES)
def test_rooms_and_links_exist(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT[page]) if not link.startswith("http")]
    rooms = re.findall(r"`((?:gradpaint|nodes|tests|scripts|docs|benchmarks)[\w/]*/)`", TEXT[page])
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []
    assert [room for room in rooms if not (ROOT / room).is_dir()] == []


def test_commands_are_understood():
    commands = re.findall(r"`gradpaint (evaluate --paper \w+)`", TEXT["paper.md"])
    assert len(set(commands)) == len(cli.cli_evaluate.PAPER)
    for command in commands:
        cli.build_parser().parse_args(shlex.split(command))
    options = re.findall(
        r"`(--(?:preset|alignment|lambda|softness|stop|normalization|alpha|steps)[^`]*)`", TEXT["paper.md"]
    )
    assert len(options) >= 8
    for text in options:
        cli.build_parser().parse_args(["inpaint", "a.png", "b.png", *shlex.split(text)])
