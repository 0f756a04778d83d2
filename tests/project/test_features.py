"""docs/features.md: every feature that GradPaint claims names a test, and the test exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS, TEST = 5, 6  # columns of the tables


def rows() -> list[list[str]]:
    lines = (ROOT / "docs" / "features.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if len(row) == TEST + 1 and row[TEST] != "test" and not set(row[0]) <= {"-"}]


def exists(name: str) -> bool:
    path, function = ROOT / name.split("::")[0], name.split("::")[1]
    return path.is_file() and bool(re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE))


def test_there_are_features():
    assert len(rows()) > 40


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_every_claim_has_its_test(row):
    if row[TEST]:
        assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`", row[TEST]) and exists(row[TEST].strip("`")), row[TEST]
    else:
        assert row[OURS].startswith(("no", "by core's nodes", "encode and composite on the CPU")), "claim without test"


def test_a_missing_test_is_found():
    assert exists("tests/project/test_features.py::test_there_are_features")
    assert not exists("tests/project/test_features.py::test_that_is_not_there")
    assert not exists("tests/no_file.py::test_x")
