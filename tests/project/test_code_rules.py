"""The rules for code that a tool can check: ruff and mypy find nothing, files and functions stay short."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from packing import ROOT, python_files

LONGEST_FILE, LONGEST_FUNCTION = 300, 60  # lines

# What breaks a rule today. These lists only get shorter: an entry that no longer applies fails the test too.
FILES_TOO_LONG: set[str] = set()
FUNCTIONS_TOO_LONG: set[str] = set()
FOLDERS_WITH_TYPE_ERRORS: set[str] = set()


def run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess:
    if find_spec(name) is None:
        pytest.skip(f'{name} is not installed; pip install ".[test]" brings it')
    return subprocess.run([sys.executable, "-m", name, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [("check", "."), ("format", "--check", ".")], ids=["lint", "format"])
def test_ruff(arguments):
    done = run_tool("ruff", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy():
    if not ROOT.name.isidentifier():
        pytest.skip(f"mypy needs a folder whose name is a Python identifier; this one is {ROOT.name!r}")
    done = run_tool("mypy", "--no-error-summary", "--hide-error-context")
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert done.returncode in (0, 1) and bool(errors) == bool(done.returncode), done.stdout + done.stderr
    folders = Counter(Path(re.match(r"(.*?\.pyi?):", line)[1]).parent.as_posix() for line in errors)
    unexpected = [line for line in errors if Path(line.split(":")[0]).parent.as_posix() not in FOLDERS_WITH_TYPE_ERRORS]
    assert unexpected == [], "\n".join(unexpected)
    assert set(folders) == FOLDERS_WITH_TYPE_ERRORS, "clean now, take them from the list"


def too_long(text: str, file: str) -> set[str]:
    """ "file: function" for each function of more lines than allowed."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {f"{file}: {node.name}" for node in functions if node.end_lineno - node.lineno >= LONGEST_FUNCTION}


def test_files_are_short():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in python_files()}
    assert {file for file, length in lengths.items() if length > LONGEST_FILE} == FILES_TOO_LONG


def test_functions_are_short():
    names = set().union(*(too_long(path.read_text(), path.relative_to(ROOT).as_posix()) for path in python_files()))
    assert names == FUNCTIONS_TOO_LONG


def test_a_long_function_is_noticed():
    body = "    pass\n" * (LONGEST_FUNCTION - 1)
    assert too_long(f"def short():\n{body}", "a.py") == set()
    assert too_long(f"class A:\n  async def long(self):\n{body}    pass\n", "a.py") == {"a.py: long"}


def test_the_hooks_run_what_the_tests_run():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    entries = re.findall(r"entry: (.*)", text)
    assert [entry.split(" --force")[0] for entry in entries[:3]] == ["ruff check", "ruff format", "mypy"]
    assert set(re.findall(r"repo: (.*)", text)) == {"local"}  # nothing is fetched from other hosts


def test_no_two_test_files_share_a_name():
    """Without packages in tests/, pytest imports them by their name alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
