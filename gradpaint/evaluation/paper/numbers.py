"""The numbers that the paper prints, as data of this package, and a user's own beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from .layouts import LAYOUTS, Layout

SOURCE = (
    "Asya Grechka, Guillaume Couairon, Matthieu Cord: GradPaint: Gradient-Guided Inpainting with Diffusion Models, "
    "arXiv 2309.09614"
)
FILE = Path(__file__).with_name("numbers.csv")
COLUMNS = ("table", "dataset", "mask", "method", "measure", "value")
NOT_APPLICABLE = "n/a"  # as the paper prints it
Key = tuple[str, str, str, str, str]  # COLUMNS without the value
Numbers = dict[Key, str]  # as printed


def cells(layout: Layout) -> Iterator[Key]:
    """The keys of all cells of a table, row by row."""
    for column in layout.columns:
        for mask in layout.masks:
            for row in layout.rows:
                for measure in layout.measures:
                    yield layout.key(column, mask, row.title, measure)


def paper_numbers() -> Numbers:
    """Every number that the paper prints in tables 1-4 and 7-9."""
    return _read(FILE, "the paper's numbers")


def read_numbers(path: Path | str) -> Numbers:
    """A user's numbers, a CSV like the one that every --paper run writes; rows without a value are skipped.

    Raises:
        ValueError: another layout, or a row that no table has.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--paper-numbers {path} does not exist")
    return _read(path, f"--paper-numbers {path}")


def _read(path: Path, name: str) -> Numbers:
    known = {key for layout in LAYOUTS.values() for key in cells(layout)}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    reader = csv.DictReader(lines)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        columns = ", ".join(reader.fieldnames or ())
        raise ValueError(f"{name} has the columns {columns}; they must be {', '.join(COLUMNS)}")
    numbers: Numbers = {}
    for row in reader:
        table, dataset, mask, method, measure, value = ((row[column] or "").strip() for column in COLUMNS)
        key = (table, dataset, mask, method, measure)
        if value and key not in known:
            raise ValueError(
                f"{name}, line {reader.line_num}: {' / '.join(key)} is no cell of a table; every --paper run writes "
                "the cells that there are to paper_numbers.csv"
            )
        if value:
            numbers[key] = value
    return numbers


def as_csv(layout: Layout, numbers: Mapping[Key, str]) -> str:
    """A table's cells with these numbers, to be changed and given as --paper-numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*key, numbers.get(key, "")] for key in cells(layout))
    return text.getvalue()
