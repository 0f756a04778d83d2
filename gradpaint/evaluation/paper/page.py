"""A table of the paper as a Markdown page: its rows in its order, its numbers and ours side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..metrics import NETWORK_NAMES, Estimate
from ..tables import markdown, number
from .layouts import Column, Layout, Mask, Row
from .numbers import NOT_APPLICABLE, SOURCE, Numbers

STAND_IN = "stand-in"
NOT_RUN = "not run"
NO_CELL = "-"  # neither the paper nor we have that
NOT_IN_THE_PAPER = "(not in the paper)"
MEASURES = {  # the CSV's name -> heading, our metric
    "fid": ("FID", "fid"),
    "lpips": ("LPIPS", "lpips"),
    "seconds": ("s per image", "seconds"),
    "feature_variance_1e-3": ("feature variance (x 1e-3)", "feature_variance"),
}
Means = Mapping[str, Mapping[str, Estimate]]  # label of a method -> metric -> estimate


@dataclass
class PageContent:
    """What a page shows beside the layout.

    Attributes:
        numbers: the paper's, see `numbers`.
        results: (column's name or STAND_IN, mask's slug) -> our means.
        given: names of the columns whose data the user has; empty: the bundled model stands in for all.
        extra_rows: what the user added, which the paper does not have.
        problems: metric -> why it could not be computed, as a clause.
        missing_rows: title of a row -> why it was not run.
        net: LPIPS network.
        details: (title, Markdown) of each block in full.
    """

    numbers: Numbers
    results: dict[tuple[str, str], Means] = field(default_factory=dict)
    given: list[str] = field(default_factory=list)
    extra_rows: list[Row] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    missing_rows: dict[str, str] = field(default_factory=dict)
    net: str = "alex"
    details: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Cell:
    """A column of the Markdown table: what the paper prints, or what we have."""

    source: str
    mask: Mask
    measure: str
    paper: Column | None = None


def page(layout: Layout, content: PageContent) -> str:
    """The table as Markdown."""
    lines = [f"# {layout.name}: {layout.title}", "", f"Paper: {SOURCE}.", ""]
    if not content.given:
        lines += [
            "**Stand-in**: the paper's rows on the bundled 64x64 model and its held-out scenes. Our numbers are not "
            "comparable with the paper's.",
            "",
        ]
    lines += [_table(layout, content), "", *_legend(layout, content), ""]
    if layout.notes:
        lines += ["## Uncertain or different", "", *(f"* {note}" for note in layout.notes), ""]
    for title, text in content.details:
        lines += [f"## {title}, in full", "", text, ""]
    return "\n".join([*lines, "## What it needs", "", *needs(layout, content.given), ""])


def _table(layout: Layout, content: PageContent) -> str:
    columns = _columns(layout, content)
    header = ["method", *(["training-free", "diffusion-based"] if layout.ticks else [])]
    header += [_heading(layout, cell, content.net) for cell in columns]
    rows = []
    for row in (*layout.rows, *content.extra_rows):
        first = [row.title, *(["yes" if tick else "" for tick in row.ticks or (False, False)] if layout.ticks else [])]
        rows.append(first + [_text(layout, cell, row, content) for cell in columns])
    return markdown(header, rows)


def _columns(layout: Layout, content: PageContent) -> list[_Cell]:
    columns = []
    for column in layout.columns:
        for mask in layout.masks:
            for measure in layout.measures:
                if _has_numbers(layout, content):
                    columns.append(_Cell(column.name, mask, measure, column))
                if column.name in content.given:
                    columns.append(_Cell(column.name, mask, measure))
    if not content.given:
        columns += [_Cell(STAND_IN, mask, measure) for mask in layout.masks for measure in layout.measures]
    return columns


def _has_numbers(layout: Layout, content: PageContent) -> bool:
    return any(key[0] == layout.name for key in content.numbers)


def _heading(layout: Layout, cell: _Cell, net: str) -> str:
    title = "" if cell.source == STAND_IN else layout.column(cell.source).title
    mask = cell.mask.title if len(layout.masks) > 1 else ""
    measure = MEASURES[cell.measure][0]
    if cell.paper is None and cell.measure == "lpips":
        measure += f" ({NETWORK_NAMES.get(net, net)})"
    if cell.source == STAND_IN:
        return " ".join(filter(None, ["stand-in", mask, measure]))
    return " ".join(filter(None, [title, mask, measure])) + (", ours" if cell.paper is None else ", paper")


def _text(layout: Layout, cell: _Cell, row: Row, content: PageContent) -> str:
    if cell.paper is not None:
        value = content.numbers.get(layout.key(cell.paper, cell.mask, row.title, cell.measure), NO_CELL)
        return f"{NOT_APPLICABLE} in the paper" if value == NOT_APPLICABLE else value
    metric = MEASURES[cell.measure][1]
    estimate = content.results.get((cell.source, cell.mask.slug), {}).get(row.title, {}).get(metric)
    if estimate is None or math.isnan(estimate.value):
        return NOT_RUN
    return number(estimate, metric)


def _legend(layout: Layout, content: PageContent) -> list[str]:
    lines = []
    if any(value == NOT_APPLICABLE for key, value in content.numbers.items() if key[0] == layout.name):
        lines.append(f'* "{NOT_APPLICABLE} in the paper": the paper itself has no number there.')
    if content.extra_rows:
        lines.append(f"* Rows marked {NOT_IN_THE_PAPER} were added here.")
    for measure in layout.measures:
        title, metric = MEASURES[measure]
        if metric in content.problems:
            lines.append(f"* {title} {NOT_RUN}: {content.problems[metric]}.")
    lines += [f"* {title} {NOT_RUN}: {reason}." for title, reason in content.missing_rows.items()]
    lines += [
        f"* {column.title} {NOT_RUN}: {column.elsewhere}."
        for column in layout.columns
        if column.elsewhere is not None and column.name not in content.given
    ]
    lines.append("* +- is one standard error over images.")
    return lines


def needs(layout: Layout, given: list[str]) -> list[str]:
    """What the table's own setting needs and where it comes from, as Markdown lines."""
    lines = []
    for column in layout.columns:
        state = "given" if column.name in given else "missing"
        name = column.title or "Images"
        options = f"--data {column.name}=FOLDER"
        options += f" --model {column.name}=CHECKPOINT" if column.elsewhere is None else ""
        lines.append(f"* {name} ({state}): {column.images}. Model: {column.model}. `{options}`")
    others = [row.title for row in layout.rows if row.ours is None]
    if others or any(column.elsewhere for column in layout.columns):
        names = ", ".join(others) or "Stable Diffusion"
        lines.append(
            f"* {names}: run elsewhere on the pictures in inputs/ and masks/ of each folder, and given as "
            "`--results NAME=FOLDER`, with a folder DATASET_MASK for each data set and mask, and pictures named as in "
            "inputs/."
        )
    if any(row.method == "latent_copy" for row in layout.rows):
        lines.append(
            "* latent COPY: the latent --model's own encoder and decoder, unless `--codec NAME=MODULE:CALLABLE` gives "
            "others."
        )
    if "fid" in layout.measures:
        lines.append(
            "* FID: `--fid`, which downloads its network, or `--fid-features`; `--fid-reference NAME=FOLDER` for each "
            "data set, and the paper's 5,000 images."
        )
    return lines
