"""The test workflow runs .ci/run, every part of it, on every Python that pyproject.toml promises."""

import re
import shutil
import subprocess
import sys

import pytest
from packing import ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "test.yml").read_text()
CI_RUN = (ROOT / ".ci" / "run").read_text()


def test_every_part_is_run_and_only_by_ci_run():
    parts = set(re.findall(r"^    (\w+)\) selection=", CI_RUN, re.MULTILINE))
    assert parts == {"all", "checks", "library", "host"}
    assert set(re.findall(r"run: \.ci/run (\w+)$", WORKFLOW, re.MULTILINE)) == parts - {"all"}
    assert not re.search(r"\b(?:pip|pytest|ruff|mypy)\b +\w", WORKFLOW)  # command lines are written once, elsewhere


def test_every_supported_python_on_three_systems():
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())[1]
    versions = re.findall(r'"3\.(\d+)"', re.search(r"python: \[(.*)\]", WORKFLOW)[1])
    assert versions[0] == oldest and versions == [str(minor) for minor in range(int(oldest), int(versions[-1]) + 1)]
    assert len(versions) >= 4
    assert re.search(r"os: \[(.*)\]", WORKFLOW)[1] == "ubuntu-latest, windows-latest, macos-latest"


def test_the_floor_is_read_from_the_metadata():
    """The workflow's own sed expression, on our pyproject.toml."""
    expression = re.search(r"sed -n '(.*?)' gradpaint/pyproject.toml", WORKFLOW)[1]
    pattern = expression.removeprefix("s/").removesuffix(r"/\1/p").replace(r"\(", "(").replace(r"\)", ")")
    (version,) = re.findall(pattern, (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="needs bash to run .ci/run itself")
def test_an_unknown_part_is_refused():
    done = subprocess.run(["bash", ROOT / ".ci" / "run", "lint"], capture_output=True, text=True)
    assert done.returncode == 2 and "lint: no such part; there are all, checks, library, host" in done.stderr
