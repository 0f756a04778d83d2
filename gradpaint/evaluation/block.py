"""One evaluation: one set of images with one kind of mask, all methods and seeds, in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import __version__
from ..image.files import load_image
from .dataset import Cases, chosen_files, named_files
from .fid import Features, features_of
from .methodspec import MethodSpec
from .metrics import WEIGHTS, missing_lpips_weights
from .notes import notes
from .records import check_config, write_text
from .results import Comparison, MethodScores, as_csv, collect, comparison, paired, summary
from .runner import Denoiser, RunFolder, Setup, run
from .scoring import Scorer, Source, lpips_problem
from .sheets import write_sheets

TABLES_EVERY = 30.0  # seconds between two versions of the tables while methods run


@dataclass
class Scoring:
    """How results are scored.

    Attributes:
        net: LPIPS network, or "none".
        download: whether its weights may be downloaded; otherwise LPIPS is left out without them.
        features: network for FID, see `fid.load_features`; None: no FID.
        fid_reference: folder of true images for it; None: the images that are inpainted.
        baseline: label of the method that the others are compared with; None: the first.
        sheets: images on contact sheets.
        pairs: with several seeds, score the distance between all pairs of an image's samples.
        variance_features: network for the variance of an image's samples, table 8; None: none.
        problems: metric -> why it is left out, as a clause, where the caller knows.
    """

    net: str = "squeeze"
    download: bool = True
    features: Features | None = None
    fid_reference: Path | None = None
    baseline: str | None = None
    sheets: int = 8
    pairs: bool = True
    variance_features: Features | None = None
    problems: dict[str, str] = field(default_factory=dict)


@dataclass
class Block:
    """One folder's work.

    Attributes:
        title: for the text.
        folder: where everything goes.
        cases: images and masks.
        specs: the methods to run, with every one of the seeds.
        seeds: of the noise.
        setup: what all methods share.
        scoring: how they are scored.
        identity: JSON values that tell these data and this model from others, see `config`.
        results: label -> folder of another method's finished pictures.
        command: that makes all this, for the text.
    """

    title: str
    folder: Path
    cases: Cases
    specs: list[MethodSpec]
    seeds: list[int]
    setup: Setup
    scoring: Scoring
    identity: dict[str, Any]
    results: dict[str, Path] = field(default_factory=dict)
    command: str = ""

    def config(self) -> dict[str, Any]:
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
    def labels(self) -> list[str]:
        return [spec.label for spec in self.specs] + list(self.results)


class Evaluation:
    """Runs and scores a block.

    Attributes:
        methods: the scores so far.
        table: their comparison.
        no_lpips: why there is no LPIPS, as a sentence; "" where none is wanted, None where there is one.
    """

    def __init__(self, block: Block):
        self.block, self.scoring, self.names = block, block.scoring, block.cases.names
        repeated = [label for label in block.labels if block.labels.count(label) > 1]
        if repeated:
            raise ValueError(f"method {repeated[0]} is named twice")
        self.baseline = self.scoring.baseline or next(iter(block.labels), "")
        if block.labels and self.baseline not in block.labels:
            raise ValueError(f"baseline is {self.baseline!r}, but must be one of: {', '.join(block.labels)}")
        others = {
            label: chosen_files(folder, self.names, f"the results of {label}", block.cases.size)
            for label, folder in block.results.items()
        }
        self.others = [Source(label, {0: files}) for label, files in others.items()]
        check_config(block.folder / "config.json", block.config())
        conditions = block.cases.conditions()
        if conditions:
            write_text(block.folder / "conditions.csv", conditions)
        self.folder = RunFolder(block.folder)
        self.no_lpips = self._lpips_problem()
        net = None if self.no_lpips is not None else self.scoring.net
        self.scorer = Scorer(block.folder, net, block.setup.device, self.scoring.pairs, self.scoring.variance_features)
        self.methods: list[MethodScores] = []
        self.table: Comparison | None = None
        self._written = 0.0

    def _lpips_problem(self) -> str | None:
        net = self.scoring.net
        if net != "none" and not self.scoring.download:
            missing = missing_lpips_weights(net)
            if missing is not None:
                others = [name for name in WEIGHTS if missing_lpips_weights(name) is None]
                return missing + (f"; --lpips-net takes another network: {', '.join(others)}" if others else "")
        return lpips_problem(net, self.block.cases.size)

    def problems(self) -> dict[str, str]:
        """Metric -> why it is left out, as a clause."""
        if self.no_lpips is None:
            return self.scoring.problems
        return {"lpips": self.no_lpips or "--lpips-net is none"} | self.scoring.problems

    def missing(self) -> int:
        """Number of results still to be made."""
        return self.folder.missing(self.block.specs, self.block.seeds, self.names)

    def sources(self, names: Sequence[str] | None = None) -> list[Source]:
        """Our methods' results that are on disk, and the others'; of all images or of these."""
        wanted = self.names if names is None else names
        return [self._source(spec, wanted) for spec in self.block.specs] + self.others

    def _source(self, spec: MethodSpec, names: Sequence[str]) -> Source:
        return Source(
            spec.label,
            {
                seed: {name: self.folder.path(spec, seed, name) for name in names if self.folder.done(spec, seed, name)}
                for seed in self.block.seeds
            },
        )

    def run(self, denoiser: Denoiser, progress: bool = True) -> None:
        """Make and score what is missing, then write the tables and sheets.

        Raises:
            KeyboardInterrupt: after writing the tables of what is done.
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

    def _scored(self, names: Sequence[str]) -> None:
        for source in self.sources(names):
            self.scorer.score(source, names)
        if time.monotonic() - self._written > TABLES_EVERY:
            self.write(complete=False)

    def write(self, complete: bool) -> None:
        """Write results.md and results.csv, and with `complete` the sheets and FID, which takes long."""
        sources = self.sources()
        collected = [collect(source, self.names, self.scorer, self.folder.records) for source in sources]
        self.methods = [scores for scores in collected if scores is not None]
        self._written = time.monotonic()
        reference = None
        if complete and self.scoring.features is not None:
            reference = self._add_features(sources, self.scoring.features)
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

    def _add_features(self, sources: Sequence[Source], network: Features) -> Tensor:
        """Take the methods' features; returns the reference's."""
        files_of = {source.label: source.files.values() for source in sources}
        for scores in self.methods:
            paths = [files[name] for name in scores.names for files in files_of[scores.label]]
            scores.features = self._features_of(paths, network)
        if self.scoring.fid_reference is not None:
            return self._features_of(list(named_files(self.scoring.fid_reference).values()), network)
        return self._features_of([self.folder.input_path(name) for name in self.names], network)

    def _features_of(self, paths: Sequence[Path], network: Features) -> Tensor:
        size = max(1, self.block.setup.batch)
        groups = [paths[i : i + size] for i in range(0, len(paths), size)]
        batches = (batch for group in groups for batch in _of_one_size([load_image(path) for path in group]))
        return features_of(network, batches)

    def text(self) -> str:
        """The results as Markdown."""
        block, missing = self.block, self.missing()
        state = f"; {missing} results are still missing" if missing else ""
        seeds = f"{len(block.seeds)} seeds" if len(block.seeds) > 1 else f"seed {block.seeds[0]}"
        lines = [
            f"# {block.title}",
            "",
            f"{len(self.names)} images of {block.cases.size[1]}x{block.cases.size[0]} pixels, "
            f"{block.cases.mask_kind} masks, {block.setup.steps} {block.setup.sampler} steps, {seeds}{state}.",
            "",
        ]
        if self.table is None or not self.methods:
            return "\n".join([*lines, "Nothing is finished yet.", ""])
        lines += [summary(self.table), ""]
        differences = paired(self.table)
        lines += [differences, ""] if differences else []
        return "\n".join(lines + [f"* {note}" for note in notes(self)] + [""])


def _of_one_size(images: Sequence[Tensor]) -> list[Tensor]:
    """Batches of equal size out of (1, 3, H, W) images: a reference folder may hold any sizes."""
    sizes = {image.shape[2:] for image in images}
    return [torch.cat([image for image in images if image.shape[2:] == size]) for size in sizes]
