"""`gradpaint evaluate --paper`: runs the rows of one of the paper's tables and lays them out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..drawing.plots import tradeoff_plot
from ..image.files import save_image
from . import paper
from .methodspec import parse_method
from .records import replace_file, write_text

PAPER_STEPS = 100  # of GradPaint in the paper
STAND_IN_STEPS = 30


class PaperRun:
    """Blocks of one table, and its page.

    layout     see `paper.LAYOUTS`.
    folder     a subfolder per data set and mask, the page, the template of the paper's numbers, for Fig. 9 the plots.
    datasets   names that the user has; empty: the stand-in.
    numbers    the paper's, see `paper.read_numbers`.
    results    label -> folder with a subfolder of another method's pictures per block.
    command    that makes all this, for the page.
    """

    def __init__(self, layout, folder, datasets, numbers, codec=None, results=None, command=""):
        self.layout, self.folder, self.numbers, self.codec = layout, Path(folder), numbers, codec
        self.command = command
        self.datasets, self.results, self.found = list(datasets), dict(results or {}), {}
        unknown = [name for name in self.datasets if name not in layout.datasets]
        if unknown:
            raise ValueError(f"--data names {unknown[0]!r}, but {layout.name} has {', '.join(layout.datasets)}")

    def blocks(self):
        """(data set or STAND_IN, mask, folder, title) of every block."""
        for dataset in self.datasets or [paper.STAND_IN]:
            for mask in self.layout.masks:
                name = f"{'scenes' if dataset == paper.STAND_IN else dataset}_{mask.slug}"
                yield dataset, mask, self.folder / name, f"{self.layout.name}, {name}"

    def specs(self, dataset):
        """The rows that can be run here, labelled with their titles."""
        found = []
        for row in self.layout.rows:
            text = row.method(dataset != paper.STAND_IN, self.codec is not None)
            if text is not None:
                found.append(dataclasses.replace(parse_method(text), label=row.title))
        return found

    def results_of(self, folder):
        """label -> folder of other methods' pictures for one block; those without a folder for it are left out."""
        return {label: path / folder.name for label, path in self.results.items() if (path / folder.name).is_dir()}

    def add(self, dataset, mask, evaluation):
        """Take over a block's numbers."""
        table = evaluation.table
        self.found[dataset, mask.slug] = {} if table is None else table.means

    def write(self):
        """NAME.md, paper_numbers.csv and, for Fig. 9, the plots. Returns the page's path."""
        write_text(self.folder / "paper_numbers.csv", paper.numbers_template(self.layout))
        rows = list(self.layout.rows)
        titles = {row.title for row in rows}
        extra = [paper.Row(label) for label in self.results if label not in titles]
        layout = dataclasses.replace(self.layout, rows=tuple(rows + extra)) if extra else self.layout
        text = paper.page(layout, self.found, self.numbers, self.datasets)
        if self.layout.name == "fig9":
            text += "".join(f"\n![{path.stem}]({path.name})\n" for path in self.plots())
        if self.command:
            text += f"\nCommand: `{self.command}`\n"
        return write_text(self.folder / f"{self.layout.name}.md", text)

    def plots(self):
        """Fig. 9: quality by share of guided steps and by seconds, for each block that has any numbers."""
        paths = []
        for (dataset, _), means in self.found.items():
            shares = {row.title: share for row, share in zip(self.layout.rows, paper.SHARES)}
            metric = next((m for m in ("lpips", "masked_mse") if any(m in row for row in means.values())), None)
            if metric is None:
                continue
            for name, label in (("share", "share of the steps that are guided"), ("seconds", "seconds per image")):
                points = [
                    (
                        shares[title] if name == "share" else row["seconds"].value,
                        row[metric].value,
                        row[metric].error,
                        f"{shares[title]:.0%}",
                    )
                    for title, row in means.items()
                    if title in shares and metric in row and "seconds" in row
                ]
                title = f"Early stop, {dataset}: {paper.TITLES[metric][0]} with one standard error"
                picture = tradeoff_plot({"GradPaint": points}, label, paper.TITLES[metric][0], title)
                path = self.folder / f"fig9_{dataset}_{name}.png"
                paths.append(replace_file(path, lambda temporary, picture=picture: save_image(picture, temporary)))
        return paths
