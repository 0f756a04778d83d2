"""One evaluation: one set of images with one kind of mask, all methods and seeds, in a folder of its own."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .. import __version__
from ..image.files import load_image
from .dataset import Cases, chosen_files, named_files
from .fid import features_of
from .records import check_config, write_text
from .results import as_csv, collect, comparison, paired, summary
from .runner import RunFolder, Setup, run
from .scoring import KNOWN_TOLERANCE, Scorer, Source, lpips_problem
from .sheets import write_sheets

TABLES_EVERY = 30.0  # seconds between two versions of the tables while methods run


@dataclass
class Scoring:
    """How results are scored.

    net            LPIPS network, or "none".
    features       network for FID, see `fid.load_features`; None: no FID.
    fid_reference  folder of true images for it; None: the images that are inpainted.
    baseline       label of the method that the others are compared with; None: the first.
    sheets         images on contact sheets.
    """

    net: str = "squeeze"
    features: object = None
    fid_reference: Path | None = None
    baseline: str | None = None
    sheets: int = 8


@dataclass
class Block:
    """One folder's work.

    specs     `MethodSpec` of the methods to run with every one of the seeds.
    identity  JSON values that tell these data and this model from others, see `config`.
    results   label -> folder of another method's finished pictures.
    command   that makes all this, for the text.
    """

    title: str
    folder: Path
    cases: Cases
    specs: list
    seeds: list
    setup: Setup
    scoring: Scoring
    identity: dict
    results: dict = field(default_factory=dict)
    command: str = ""

    def config(self):
        """What must stay the same for results to be comparable. Methods, seeds and images may be added."""
        return {
            "gradpaint": __version__,
            **self.identity,
            "size": list(self.cases.size),
            "mask": self.cases.mask_kind,
            "mask options": self.cases.mask_details,
            "mask seed": self.cases.mask_seed,
            "steps": self.setup.steps,
            "sampler": self.setup.sampler,
            "batch": self.setup.batch,
            "device": torch.device(self.setup.device).type,
            "settings": asdict(self.setup.settings),
        }

    @property
    def labels(self):
        return [spec.label for spec in self.specs] + list(self.results)


class Evaluation:
    """Runs and scores a block. `methods` holds the `MethodScores` so far, `table` their comparison."""

    def __init__(self, block: Block):
        self.block, self.scoring, self.names = block, block.scoring, block.cases.names
        repeated = [label for label in block.labels if block.labels.count(label) > 1]
        if repeated:
            raise ValueError(f"method {repeated[0]} is named twice")
        self.baseline = self.scoring.baseline or block.labels[0]
        if self.baseline not in block.labels:
            raise ValueError(f"baseline is {self.baseline!r}, but must be one of: {', '.join(block.labels)}")
        others = {
            label: chosen_files(folder, self.names, f"the results of {label}", block.cases.size)
            for label, folder in block.results.items()
        }
        self.others = [Source(label, {0: files}) for label, files in others.items()]
        check_config(block.folder / "config.json", block.config())
        self.folder = RunFolder(block.folder)
        self.no_lpips = lpips_problem(self.scoring.net, block.cases.size)
        net = None if self.no_lpips is not None else self.scoring.net
        self.scorer = Scorer(block.folder, net, block.setup.device)
        self.methods, self.table, self._written = [], None, 0.0

    def missing(self):
        return self.folder.missing(self.block.specs, self.block.seeds, self.names)

    def sources(self, names=None):
        """Our methods' results that are on disk, and the others'; of all images or of these."""
        wanted = self.names if names is None else names
        ours = [
            Source(
                spec.label,
                {
                    seed: {
                        name: self.folder.path(spec, seed, name)
                        for name in wanted
                        if self.folder.done(spec, seed, name)
                    }
                    for seed in self.block.seeds
                },
            )
            for spec in self.block.specs
        ]
        return ours + self.others

    def run(self, denoiser, progress=True):
        """Make and score what is missing, then write the tables and sheets.

        A KeyboardInterrupt leaves the tables of what is done and is raised again.
        """
        bar = tqdm(total=self.missing(), desc=self.block.title, unit="image", disable=not progress)
        try:
            with bar:
                run(
                    self.folder,
                    self.block.cases,
                    self.block.specs,
                    self.block.seeds,
                    denoiser,
                    self.block.setup,
                    on_result=lambda spec: bar.update(),
                    on_batch=self._scored,
                )
            for source in self.sources():
                self.scorer.score_diversity(source, self.names)
        except KeyboardInterrupt:
            for source in self.sources():
                self.scorer.score(source, self.folder.started(self.names))
            self.write(complete=False)
            raise
        self.write(complete=True)

    def _scored(self, names):
        for source in self.sources(names):
            self.scorer.score(source, names)
        if time.monotonic() - self._written > TABLES_EVERY:
            self.write(complete=False)

    def write(self, complete):
        """results.md and results.csv, and with `complete` the sheets; FID takes long and is computed then only."""
        sources = self.sources()
        found = [collect(source, self.names, self.scorer, self.folder.records) for source in sources]
        self.methods = [scores for scores in found if scores is not None]
        self._written = time.monotonic()
        reference = None
        if complete and self.scoring.features is not None:
            reference = self._features(sources)
        self.table = comparison(self.methods, self.baseline, reference)
        if self.methods:
            write_text(self.block.folder / "results.csv", as_csv(self.table))
        write_text(self.block.folder / "results.md", self.text())
        if complete and self.scoring.sheets:
            write_sheets(
                self.block.folder,
                self.block.folder / "inputs",
                self.block.folder / "masks",
                sources,
                self.names[: self.scoring.sheets],
            )

    def _features(self, sources):
        """Fill in the methods' features; returns the reference's."""
        by_label = {source.label: source for source in sources}
        for scores in self.methods:
            files = by_label[scores.label].files
            scores.features = self._features_of([f[name] for name in scores.names for f in files.values()])
        if self.scoring.fid_reference is not None:
            return self._features_of(list(named_files(self.scoring.fid_reference).values()))
        return self._features_of([self.folder.input_path(name) for name in self.names])

    def _features_of(self, paths):
        size = max(1, self.block.setup.batch)
        groups = [paths[i : i + size] for i in range(0, len(paths), size)]
        batches = (batch for group in groups for batch in _of_one_size([load_image(path) for path in group]))
        return features_of(self.scoring.features, batches)

    def text(self):
        """The results as Markdown."""
        block = self.block
        missing = self.missing()
        state = f"; {missing} results are still missing" if missing else ""
        seeds = f"{len(block.seeds)} seeds" if len(block.seeds) > 1 else f"seed {block.seeds[0]}"
        lines = [
            f"# {block.title}",
            "",
            f"{len(self.names)} images of {block.cases.size[1]}x{block.cases.size[0]} pixels, "
            f"{block.cases.mask_kind} masks, {block.setup.steps} {block.setup.sampler} steps, {seeds}{state}.",
            "",
        ]
        if not self.methods:
            return "\n".join([*lines, "Nothing is finished yet.", ""])
        lines += [summary(self.table), ""]
        differences = paired(self.table)
        lines += [differences, ""] if differences else []
        return "\n".join(lines + [f"* {note}" for note in self.notes()] + [""])

    def notes(self):
        """What a reader of the tables has to know."""
        notes = [
            "+- is one standard error over images (samples of one image averaged first); paired differences are "
            "over the images that both methods have, z in units of their error."
        ]
        if self.no_lpips:
            notes.append(f"No LPIPS: {self.no_lpips}")
        elif self.no_lpips is None:
            notes.append(f"LPIPS with the {self.scoring.net} network, of whole images; lower is better.")
        notes.append(
            "Seam: squared jump across the mask's border over that of the true images, pooled over images, "
            "error by jackknife; abs log seam: distance from 1 on a logarithmic scale, lower is better."
        )
        if any("fid" in row for row in self.table.means.values()):
            against = self.scoring.fid_reference or "the true images"
            notes.append(
                f"FID against {against}, error by a jackknife over 20 groups of images; biased upwards for "
                "few images, so compare equal numbers only."
            )
        clock = "processor time" if torch.device(self.block.setup.device).type == "cpu" else "wall-clock time"
        notes.append(f"s: {clock} per image in batches of up to {self.block.setup.batch}.")
        for spec in self.block.specs:
            skipped = self._skipped(spec)
            if skipped:
                notes.append(f"{spec.label}: {skipped} gradients were not finite and were left out.")
        for scores in self.methods:
            worst = float(scores.values["known_error"].max())
            if worst > KNOWN_TOLERANCE:
                notes.append(
                    f"{scores.label}: known pixels differ by up to {worst * 127.5:.0f} of 255; scored as it is."
                )
        notes.append(
            f"gradpaint {__version__}, torch {torch.__version__}, {platform.machine()}, "
            f"{self.block.setup.device}, {torch.get_num_threads()} CPU thread(s)."
        )
        return notes + ([f"Command: `{self.block.command}`"] if self.block.command else [])

    def _skipped(self, spec):
        rows = [row for row in self.folder.records.rows.values() if row["method"] == spec.label]
        return sum({(row["seed"], row["batch"]): row["skipped_nudges"] for row in rows}.values())


def _of_one_size(images):
    """Batches of equal size out of a list of (1, 3, H, W): a reference folder may hold any sizes."""
    sizes = {image.shape[2:] for image in images}
    return [torch.cat([image for image in images if image.shape[2:] == size]) for size in sizes]
