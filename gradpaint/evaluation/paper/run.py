"""Runs the rows of one of the paper's tables, block by block, and lays them out."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...drawing.plots import tradeoff_plot
from ...image.files import save_image
from ..block import Evaluation
from ..methodspec import MethodSpec, parse_method
from ..records import replace_file, write_text
from ..results import summary
from ..tables import TITLES
from .layouts import Layout, Mask, Row
from .numbers import Numbers, as_csv
from .page import NOT_IN_THE_PAPER, STAND_IN, PageContent, page

PAPER_STEPS = 100  # of GradPaint in the paper
STAND_IN_STEPS = 30


@dataclass(frozen=True)
class Task:
    """One block's place: the column's name or STAND_IN, the mask, the folder, the title."""

    column: str
    mask: Mask
    folder: Path
    title: str


def check_kind(layout: Layout, name: str, latent: bool) -> None:
    """Check that a data set's model is of the kind that the table is about.

    Raises:
        ValueError: names what takes such a model.
    """
    column = layout.column(name)
    if column.elsewhere is not None:
        raise ValueError(f"--model {name}: {layout.name} has {column.elsewhere}; leave --model {name} out")
    if column.latent is None or column.latent == latent:
        return
    if latent:
        raise ValueError(
            f"--model {name} is a latent diffusion model, but --paper {layout.name} is about models of pixels; latent "
            "ones belong to --paper table3, and table7, fig2 and fig10 take them too"
        )
    raise ValueError(
        f"--model {name} is a model of pixels, but --paper {layout.name} is about latent models; give the complete "
        "checkpoint of a CompVis latent diffusion model"
    )


@dataclass
class Given:
    """What the user has.

    Attributes:
        columns: names of data sets, in any order; empty: the bundled model stands in.
        models: those of them that have a model.
        latent: those of `models` that work on latents.
        codecs: names of the data sets that have a latent model's codec besides.
        results: label -> folder with a subfolder of another method's pictures per block.
        methods: further methods, as `parse_method` takes them.
    """

    columns: list[str] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    latent: set[str] = field(default_factory=set)
    codecs: set[str] = field(default_factory=set)
    results: Mapping[str, Path] = field(default_factory=dict)
    methods: list[str] = field(default_factory=list)


class PaperRun:
    """The blocks of one table, and its page.

    Args:
        layout: see `layouts.LAYOUTS`.
        folder: gets a subfolder per data set and mask, the page, its numbers as a CSV, and for fig. 9 the plots.
        given: what the user has.
        numbers: the paper's.
        command: that makes all this, for the page.
    """

    def __init__(self, layout: Layout, folder: Path | str, given: Given, numbers: Numbers, command: str = ""):
        self.layout, self.folder, self.given, self.command = layout, Path(folder), given, command
        names = [column.name for column in layout.columns]
        unknown = [name for name in given.columns if name not in names]
        if unknown:
            raise ValueError(f"--data names {unknown[0]!r}, but {layout.name} has {', '.join(names)}")
        for name in given.columns:
            if name in given.models:
                check_kind(layout, name, name in given.latent)
        self.content = PageContent(numbers, given=list(given.columns))
        titles = {row.title for row in layout.rows}
        self._extra = {text: Row(f"{text} {NOT_IN_THE_PAPER}", text) for text in given.methods}
        self._results = {label: label if label in titles else f"{label} {NOT_IN_THE_PAPER}" for label in given.results}
        self.content.extra_rows = [
            *self._extra.values(),
            *(Row(title) for label, title in self._results.items() if label not in titles),
        ]

    def tasks(self) -> Iterator[Task]:
        """Every block of the table that can be run."""
        for column in self.given.columns or [STAND_IN]:
            for mask in self.layout.masks:
                name = f"{'scenes' if column == STAND_IN else column}_{mask.slug}"
                yield Task(column, mask, self.folder / name, f"{self.layout.name}, {name}")

    def specs(self, column: str) -> list[MethodSpec]:
        """The rows that can be run here, labeled with their titles; notes why the others can't."""
        specs = []
        for row in (*self.layout.rows, *self._extra.values()):
            text, reason = row.spec(column == STAND_IN), self._obstacle(row, column)
            if text is not None and reason is None:
                specs.append(parse_method(text, row.title))
            elif reason is not None and row.title not in self.given.results:
                self.content.missing_rows.setdefault(row.title, reason)
        return specs

    def _obstacle(self, row: Row, column: str) -> str | None:
        """Why a row cannot be run, as a clause."""
        if row.ours is None:
            return "a trained model of others; --results takes its pictures" if row in self.layout.rows else None
        if row.method == "latent_copy" and column not in self.given.codecs | self.given.latent:
            return "it needs a latent model's encoder and decoder: that of a latent --model, or --codec"
        if not row.needs_model or column == STAND_IN:
            return None
        if column not in self.given.models:
            elsewhere = self.layout.column(column).elsewhere
            if elsewhere is not None:
                return f"--data {column} is for {elsewhere}"
            return f"--data {column} has no --model {column}=CHECKPOINT, and no --results of it were given"
        either = self.layout.column(column).latent is None
        if either and column in self.given.latent and row in self.layout.rows and not row.latent:
            return "its row is for a model of pixels, and --model is one of latents"
        return None

    def results_of(self, folder: Path) -> dict[str, Path]:
        """Title of a row -> folder of another method's pictures for one block, of those who have one for it."""
        return {
            self._results[label]: path / folder.name
            for label, path in self.given.results.items()
            if (path / folder.name).is_dir()
        }

    def add(self, task: Task, evaluation: Evaluation) -> None:
        """Take over a block's numbers."""
        table = evaluation.table
        self.content.results[task.column, task.mask.slug] = {} if table is None else table.means
        if table is not None and table.methods:
            self.content.details.append((task.folder.name, summary(table)))
        self.content.net = evaluation.scoring.net
        self.content.problems |= evaluation.problems()

    def write(self) -> Path:
        """Write NAME.md, paper_numbers.csv and, for fig. 9, the plots. Returns the page's path."""
        write_text(self.folder / "paper_numbers.csv", as_csv(self.layout, self.content.numbers))
        text = page(self.layout, self.content)
        if self.layout.name == "fig9":
            text += "".join(f"\n![{path.stem}]({path.name})\n" for path in self.plots())
        if self.command:
            text += f"\nCommand: `{self.command}`\n"
        return write_text(self.folder / f"{self.layout.name}.md", text)

    def plots(self) -> list[Path]:
        """Fig. 9: quality against seconds and against the share of guided steps, for each block with numbers."""
        paths = []
        shares = {row.title: row.share for row in self.layout.rows if row.share is not None}
        for (column, _), means in self.content.results.items():
            for metric in _plotted(means):
                for name, label in (("seconds", "seconds per image"), ("share", "share of the steps that are guided")):
                    points = [
                        (
                            row["seconds"].value if name == "seconds" else shares[title],
                            *_point(row, metric),
                            f"{shares[title]:.0%}",
                        )
                        for title, row in means.items()
                        if title in shares and metric in row and "seconds" in row
                    ]
                    title = f"Early stop, {column}: {TITLES[metric][0]} with one standard error"
                    picture = tradeoff_plot({"GradPaint": points}, label, TITLES[metric][0], title)
                    suffix = f"{metric}_{name}" if len(_plotted(means)) > 1 else name
                    path = self.folder / f"fig9_{column}_{suffix}.png"
                    paths.append(replace_file(path, functools.partial(save_image, picture)))
        return paths


def _plotted(means: Mapping) -> list[str]:
    """FID and LPIPS, those that there are; else the error in the hole."""
    for metrics in (("fid", "lpips"), ("masked_mse",)):
        present = [metric for metric in metrics if any(metric in row for row in means.values())]
        if present:
            return present
    return []


def _point(row: Mapping, metric: str) -> tuple[float, float]:
    return row[metric].value, row[metric].error
