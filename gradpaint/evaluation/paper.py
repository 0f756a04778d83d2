"""The paper's tables and Fig. 9: which rows each has, what they need, and the paper's numbers beside ours.

The text of the paper (arXiv 2309.09614, CVIU 2024) was not at hand when this was written. What is certain is the list
of its methods, data sets and masks, that Table 8 is about diversity at four coverages, and that Fig. 9 is the trade-off
of the early stop. Which of the others' combinations stands in which table is our reading (`certain` is False and
the output says so). Not one number of the paper is in here: a user who has the paper gives them with --paper-numbers.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from .tables import TITLES, markdown, number

MEASURES = {
    "lpips": "LPIPS",
    "fid": "FID",
    "diversity_lpips": "diversity (LPIPS)",
    "seconds": "s per image",
    "forwards": "evaluations, forward only",
    "backwards": "evaluations, forward and backward",
}
EXTRA = ("masked_mse", "seam_ratio")  # shown for our runs in addition
STAND_IN = "stand-in"
NO_NUMBER = "n/a"
COLUMNS = ("table", "dataset", "mask", "method", "measure", "value")  # of --paper-numbers


@dataclass(frozen=True)
class Dataset:
    """title; images: where they come from; model: which checkpoint the paper's setting needs, and from where."""

    title: str
    images: str
    model: str


DATASETS = {
    "ffhq": Dataset(
        "FFHQ",
        "Flickr-Faces-HQ, from the ffhq-dataset project of NVlabs on GitHub",
        "an unconditional 256x256 guided-diffusion model of FFHQ; the DPS project's page links one",
    ),
    "celebahq": Dataset(
        "CelebA-HQ",
        "CelebA-HQ, from the progressive_growing_of_gans project of tkarras on GitHub, or the LaMa project's page",
        "a 256x256 guided-diffusion model of CelebA-HQ; the RePaint project's page links one",
    ),
    "imagenet": Dataset(
        "ImageNet",
        "the validation images of ILSVRC 2012, from image-net.org after registration",
        "256x256_diffusion_uncond.pt, from OpenAI's guided-diffusion project on GitHub",
    ),
    "places2": Dataset(
        "Places2",
        "the validation images of Places365-Standard, from the Places2 project page of MIT",
        "a 256x256 guided-diffusion model of Places2; the RePaint project's page links one",
    ),
    "coco": Dataset(
        "COCO",
        "the validation images of MS-COCO, from cocodataset.org",
        "a latent text-to-image model (Stable Diffusion): run it with the GradPaint nodes in ComfyUI and "
        "give the saved pictures with --results",
    ),
}


@dataclass(frozen=True)
class Mask:
    kind: str
    options: tuple = ()  # of (name, value)

    @property
    def title(self):
        values = ", ".join(f"{value:.0%}" for name, value in self.options if name in ("coverage", "probability"))
        return f"{self.kind} {values}".strip()

    @property
    def slug(self):
        return "_".join([self.kind, *(f"{value:g}" for name, value in self.options)])


@dataclass(frozen=True)
class Row:
    """A method of the paper. ours: how to run it on real data; stand_in: with the bundled model; both None where it
    is a trained model of others, whose results a user has to give."""

    title: str
    ours: str | None = None
    stand_in: str | None = None

    def method(self, real, codec=False):
        """What to run, for `methodspec.parse_method`; None where it cannot be run here."""
        found = self.ours if real else self.stand_in
        return None if found == "latent_copy" and not codec else found

    @classmethod
    def of(cls, title, name, paper_options="", always=""):
        """paper_options: what the paper ran it with; always: what both runs have."""

        def join(*parts):
            return ":".join(filter(None, [name, ",".join(filter(None, parts))]))

        return cls(title, join(paper_options, always), join(always))


@dataclass(frozen=True)
class Layout:
    name: str
    title: str
    datasets: tuple
    masks: tuple
    rows: tuple
    measures: tuple
    seeds: int = 1
    certain: bool = False


IMAGE, NOISY = Row.of("Combine-image", "combine_image"), Row.of("Combine-noisy", "combine_noisy")
REPAINT = Row.of("RePaint", "repaint", "steps=250", "resamplings=10")
MCG, DPS = Row.of("MCG", "mcg", "steps=1000"), Row.of("DPS", "dps", "steps=1000")
GRADPAINT = Row.of("GradPaint", "gradpaint_full")
FAST = Row.of("GradPaint-Fast", "gradpaint_fast")
LAMA, PALETTE = Row("LaMa"), Row("Palette")
ORACLES = (Row.of("COPY", "copy"), Row.of("latent COPY", "latent_copy"), Row.of("GREYFILL", "greyfill"))
METHODS = (IMAGE, NOISY, REPAINT, MCG, DPS, GRADPAINT, FAST)
LAMA_MASKS = (Mask("thin"), Mask("medium"), Mask("thick"))
COVERAGES = tuple(Mask("coverage", (("coverage", share),)) for share in (0.1, 0.25, 0.5, 0.75))
RANDOM = (Mask("random_pixels", (("probability", 0.8),)),)
SHARES = (0.0, 0.1, 0.25, 0.45, 0.5, 0.75, 1.0)  # of the run that are guided, Fig. 9
SWEEP = tuple(Row.of(f"GradPaint, {share:.0%} guided", "gradpaint", always=f"stop={share:g}") for share in SHARES)
LOSSES = (IMAGE, Row.of("GradPaint, masked MSE alone", "gradpaint_full", always="lambda_al=0"), GRADPAINT)
QUALITY = ("lpips", "fid")

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("table1", "Faces", ("ffhq", "celebahq"), LAMA_MASKS, (*METHODS, LAMA, PALETTE), QUALITY),
        Layout("table2", "Scenes and objects", ("imagenet", "places2"), LAMA_MASKS, (*METHODS, LAMA, PALETTE), QUALITY),
        Layout(
            "table3",
            "Latent models, with the oracles",
            ("coco",),
            LAMA_MASKS,
            (IMAGE, NOISY, GRADPAINT, FAST, *ORACLES),
            QUALITY,
        ),
        Layout("table4", "Random pixels (section 7)", ("ffhq", "imagenet"), RANDOM, METHODS, QUALITY),
        Layout("table7", "The loss terms", ("ffhq", "imagenet"), (Mask("thick"),), LOSSES, QUALITY),
        Layout(
            "table8",
            "Diversity by coverage",
            ("ffhq",),
            COVERAGES,
            (IMAGE, NOISY, REPAINT, GRADPAINT, FAST),
            ("lpips", "diversity_lpips"),
            seeds=3,
            certain=True,
        ),
        Layout("table9", "Cost", ("ffhq",), (Mask("thick"),), METHODS, ("forwards", "backwards", "seconds")),
        Layout(
            "fig9",
            "Early stop: quality by share of guided steps",
            ("ffhq",),
            (Mask("thick"),),
            SWEEP,
            ("lpips", "seconds"),
            certain=True,
        ),
    )
}


def read_numbers(path):
    """(table, dataset, mask, method, measure) -> text, of a CSV with the columns COLUMNS.

    Names as in `numbers_template`; rows without a value are passed over. Raises ValueError for another layout and for
    rows that no table has.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--paper-numbers {path} does not exist")
    known = {row[:-1] for name in LAYOUTS for row in _template_rows(LAYOUTS[name])}
    numbers = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"--paper-numbers {path} has the columns {', '.join(reader.fieldnames or ())}; "
                f"they must be {', '.join(COLUMNS)}"
            )
        for row in reader:
            key = tuple((row[name] or "").strip() for name in COLUMNS[:-1])
            if not (row["value"] or "").strip():
                continue
            if key not in known:
                raise ValueError(
                    f"--paper-numbers {path}, line {reader.line_num}: {' / '.join(key)} is no cell of a "
                    "table; every --paper run writes the cells that there are to paper_numbers.csv"
                )
            numbers[key] = row["value"].strip()
    return numbers


def _template_rows(layout):
    return [
        (layout.name, dataset, mask.slug, row.title, measure, "")
        for dataset in layout.datasets
        for mask in layout.masks
        for row in layout.rows
        for measure in layout.measures
    ]


def numbers_template(layout):
    """The table's cells as a CSV with empty values, to be filled in and given as --paper-numbers."""
    lines = [",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in _template_rows(layout)]
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


def page(layout, found, numbers, given):
    """The table as Markdown: per mask the paper's rows, its numbers and ours.

    found    (dataset or STAND_IN, mask slug) -> title of a row -> metric -> Estimate.
    numbers  see `read_numbers`.
    given    names of the data sets that the user has; empty: a stand-in was run.
    """
    runs = list(given) or [STAND_IN]
    lines = [f"# {layout.name}: {layout.title}", ""]
    if not layout.certain:
        lines += ["The paper's text was not available to us: that this table holds these rows is our reading.", ""]
    if not given:
        lines += [
            "**Stand-in**: the paper's rows on the bundled 64x64 model and its held-out scenes. These numbers "
            "are not comparable with the paper's.",
            "",
        ]
    if GRADPAINT in layout.rows:
        lines += ["GradPaint is guided at every step, GradPaint-Fast in the first half of the run.", ""]
    for mask in layout.masks:
        lines += [f"## {mask.title} masks", "", _mask_table(layout, mask, runs, found, numbers), ""]
    if any(
        (layout.name, d, m.slug, r.title, x) not in numbers
        for d in layout.datasets
        for m in layout.masks
        for r in layout.rows
        for x in layout.measures
    ):
        lines += [
            f"{NO_NUMBER}: the paper's number is not available to us. Fill in paper_numbers.csv beside this file "
            "and give it with --paper-numbers.",
            "",
        ]
    return "\n".join([*lines, "## What it needs", "", *needs(layout, given), ""])


def _mask_table(layout, mask, runs, found, numbers):
    header = ["method"]
    columns = []  # of (source, metric, is it the paper's)
    for dataset in layout.datasets:
        for measure in layout.measures:
            columns.append((dataset, measure, True))
            header.append(f"{DATASETS[dataset].title} {MEASURES[measure]}, paper")
        if dataset in runs:
            columns += [(dataset, metric, False) for metric in (*layout.measures, *EXTRA)]
            header += [f"{DATASETS[dataset].title} {TITLES[m][0]}, ours" for m in (*layout.measures, *EXTRA)]
    if STAND_IN in runs:
        metrics = tuple(dict.fromkeys((*layout.measures, *EXTRA, "seconds")))
        columns += [(STAND_IN, metric, False) for metric in metrics]
        header += [f"stand-in {TITLES[metric][0]}" for metric in metrics]
    rows = []
    for row in layout.rows:
        cells = [row.title]
        for source, metric, paper in columns:
            if paper:
                cells.append(numbers.get((layout.name, source, mask.slug, row.title, metric), NO_NUMBER))
            else:
                estimate = found.get((source, mask.slug), {}).get(row.title, {}).get(metric)
                shown = estimate is not None and not math.isnan(estimate.value)
                cells.append(number(estimate, metric) if shown else "-")
        rows.append(cells)
    return markdown(header, rows)


def needs(layout, given):
    """What the table's own setting needs and where it is found, as Markdown lines."""
    lines = []
    for name in layout.datasets:
        dataset, state = DATASETS[name], "given" if name in given else "missing"
        lines.append(
            f"* {dataset.title} ({state}): {dataset.images}. Model: {dataset.model}. "
            f"`--data {name}=FOLDER --model {name}=CHECKPOINT`"
        )
    if any(row.ours is None for row in layout.rows):
        titles = ", ".join(row.title for row in layout.rows if row.ours is None)
        lines.append(
            f"* {titles}: run elsewhere on the pictures in inputs/ and masks/ of each folder (the projects' "
            "pages have code and weights); `--results NAME=FOLDER`, with a folder DATASET_MASK in it for each "
            "data set and mask, pictures named as in inputs/."
        )
    if any(row.ours == "latent_copy" for row in layout.rows):
        lines.append("* latent COPY: `--codec MODULE:CALLABLE`, a latent model's encoder and decoder.")
    if "fid" in layout.measures:
        lines.append(
            "* FID: `--fid`, which downloads its network, or `--fid-features`; the paper's FIDs are over far "
            "more images than a quick run has."
        )
    return lines
