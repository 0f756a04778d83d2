"""Numbers of an evaluation, from its scores: results.md and results.csv.

The unit is the image: with several seeds its samples are averaged first, so a standard error is over images.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .fid import fid, jackknife_groups
from .metrics import Estimate, mean_estimate, paired_difference, seam_improvement, seam_ratio
from .records import Records, Row
from .tables import TITLES, markdown, number, number_with_z

if TYPE_CHECKING:
    from .scoring import Scorer, Source

METRICS = (
    "lpips",
    "fid",
    "masked_mse",
    "masked_psnr",
    "seam_ratio",
    "diversity_lpips",
    "diversity_mse",
    "feature_variance",
    "forwards",
    "backwards",
    "seconds",
)
PAIRED = ("lpips", "fid", "masked_mse", "masked_psnr", "abs_log_seam", "seconds")
PER_IMAGE = ("masked_mse", "masked_psnr", "seam_energy", "true_seam_energy", "known_error")
COSTS = ("forwards", "backwards", "seconds")


@dataclass
class MethodScores:
    """One method's scores over its images.

    Attributes:
        label: the method.
        names: the images that have all their samples.
        values: metric -> (N,), in the order of names: those of PER_IMAGE, "lpips", "diversity_lpips", "diversity_mse"
            and "feature_variance" (x 1e-3), as far as they were computed.
        costs: each of COSTS -> (batches,), a batch's mean per image; empty for results made elsewhere.
        batches: (seed, first image) of each batch.
        features: (N * samples, D), image by image, for FID.
        samples: results per image.
    """

    label: str
    names: list[str]
    values: dict[str, Tensor]
    costs: dict[str, Tensor] = field(default_factory=dict)
    batches: list[tuple[int, str]] = field(default_factory=list)
    features: Tensor | None = None
    samples: int = 1


def collect(source: Source, names: Sequence[str], scorer: Scorer, runs: Records | None = None) -> MethodScores | None:
    """A source's scores from the records; None where no image is complete."""
    records = [(name, _rows_of(source, name, scorer.records)) for name in source.complete(names)]
    complete = {name: rows for name, rows in records if rows is not None}
    if not complete:
        return None
    values = {}
    for metric in (*PER_IMAGE, "lpips"):
        key = f"lpips_{scorer.net}" if metric == "lpips" else metric
        if all(key in sample for rows in complete.values() for sample in rows):
            samples = [[sample[key] for sample in rows] for rows in complete.values()]
            values[metric] = torch.tensor(samples, dtype=torch.float64).mean(1)
    if len(source.files) > 1:
        values |= _diversity(source, list(complete), scorer)
    batches = _batches(source, list(complete), runs)
    costs = {key: torch.tensor([float(row[key]) for row in batches.values()]) for key in COSTS} if batches else {}
    return MethodScores(source.label, list(complete), values, costs, list(batches), samples=len(source.files))


def _rows_of(source: Source, name: str, records: Records) -> list[Row] | None:
    rows = [records.get(source.label, seed, name) for seed in source.files]
    return None if None in rows else [row for row in rows if row is not None]


def _diversity(source: Source, names: Sequence[str], scorer: Scorer) -> dict[str, Tensor]:
    rows = [scorer.diversity.get(source.label, name) or {} for name in names]
    keys = {"diversity_lpips": f"lpips_{scorer.net}", "diversity_mse": "mse", "feature_variance": "feature_variance"}
    return {
        metric: torch.tensor([row[key] for row in rows], dtype=torch.float64)
        for metric, key in keys.items()
        if all(key in row for row in rows)
    }


def _batches(source: Source, names: Sequence[str], runs: Records | None) -> dict[tuple[int, str], Row]:
    """(seed, first image) -> a record of that batch, whose images were run and timed together."""
    rows = [runs.get(source.label, seed, name) for seed in source.files for name in names] if runs is not None else []
    return {(row["seed"], row["batch"]): row for row in rows if row is not None}


def estimates(scores: MethodScores, reference: Tensor | None = None) -> dict[str, Estimate]:
    """Metric -> estimate for one method; reference: features of true images, for FID."""
    means = {}
    for metric in METRICS:
        if metric in scores.values:
            means[metric] = mean_estimate(scores.values[metric])
        elif metric in scores.costs:
            means[metric] = mean_estimate(scores.costs[metric])
        elif metric == "seam_ratio" and float(scores.values["true_seam_energy"].sum()) > 0:
            means[metric] = _seam_ratio(scores.values["seam_energy"], scores.values["true_seam_energy"])
        elif metric == "fid" and scores.features is not None and len(scores.features) > 1 and reference is not None:
            means[metric] = fid(scores.features, reference, jackknife_groups(len(scores.names), scores.samples))
    return means


def _seam_ratio(energy: Tensor, truth: Tensor) -> Estimate:
    if len(energy) > 1:
        return seam_ratio(energy, truth)
    return Estimate(float(energy / truth), math.nan)


def differences(scores: MethodScores, base: MethodScores, reference: Tensor | None = None) -> dict[str, Estimate]:
    """Metric -> estimate of (scores - base), paired over the images that both have; {} for fewer than two."""
    base_names = set(base.names)
    common = [name for name in scores.names if name in base_names]
    if len(common) < 2:
        return {}
    rows, other = _rows(scores, common), _rows(base, common)
    paired = {}
    for metric in (*PAIRED, "seam_energy"):
        if metric in scores.values and metric in base.values:
            paired[metric] = paired_difference(scores.values[metric][rows], base.values[metric][other])
    shared = [batch for batch in scores.batches if batch in base.batches]
    if len(shared) > 1:
        ours, theirs = (s.costs["seconds"][[s.batches.index(batch) for batch in shared]] for s in (scores, base))
        paired["seconds"] = paired_difference(ours, theirs)
    energies = scores.values["seam_energy"][rows], base.values["seam_energy"][other]
    truth = scores.values["true_seam_energy"][rows]
    if all(float(energy.sum()) > 0 for energy in (*energies, truth)):
        paired["abs_log_seam"] = seam_improvement(*energies, truth)
    if reference is not None and scores.features is not None and base.features is not None:
        paired["fid"] = _fid_difference(scores, base, rows, other, reference)
    return paired


def _rows(scores: MethodScores, names: Sequence[str]) -> Tensor:
    where = {name: i for i, name in enumerate(scores.names)}
    return torch.tensor([where[name] for name in names])


def _fid_difference(
    scores: MethodScores, base: MethodScores, rows: Tensor, other: Tensor, reference: Tensor
) -> Estimate:
    """Only where both have as many samples per image, because FID depends on the number of images."""
    if scores.samples != base.samples or scores.features is None or base.features is None:
        return Estimate(math.nan, math.nan)
    ours, theirs = (
        features.reshape(-1, scores.samples, features.shape[1])[chosen].flatten(0, 1)
        for features, chosen in ((scores.features, rows), (base.features, other))
    )
    return fid(ours, reference, jackknife_groups(len(rows), scores.samples), baseline=theirs)


@dataclass
class Comparison:
    """All numbers of a table, each computed once.

    Attributes:
        methods: in the order of the table.
        baseline: label of the method that the others are compared with.
        means: label -> metric -> estimate.
        minus: the same for the difference from the baseline; empty without one.
    """

    methods: list[MethodScores]
    baseline: str
    means: dict[str, dict[str, Estimate]]
    minus: dict[str, dict[str, Estimate]]


def comparison(methods: list[MethodScores], baseline: str, reference: Tensor | None = None) -> Comparison:
    """Compare these methods; reference: (N, D) features of true images, for FID."""
    base = next((scores for scores in methods if scores.label == baseline), None)
    means = {scores.label: estimates(scores, reference) for scores in methods}
    minus = {}
    if base is not None:
        minus = {scores.label: differences(scores, base, reference) for scores in methods if scores is not base}
    return Comparison(methods, baseline, means, minus)


def summary(table: Comparison) -> str:
    """Markdown: a row per method with its means, standard errors and costs."""
    metrics = [metric for metric in METRICS if any(metric in row for row in table.means.values())]
    header = ["method", "images", *(TITLES[metric][0] for metric in metrics)]
    rows = []
    for scores in table.methods:
        row = table.means[scores.label]
        cells = [number(row[metric], metric) if metric in row else "-" for metric in metrics]
        rows.append([scores.label, str(len(scores.names)), *cells])
    return markdown(header, rows)


def paired(table: Comparison, metrics: Sequence[str] = PAIRED) -> str:
    """Markdown: each method minus the baseline, with z; "" where there is nothing to compare."""
    minus = {label: row for label, row in table.minus.items() if row}
    shown = [metric for metric in metrics if any(metric in row for row in minus.values())]
    if not shown:
        return ""
    rows = [[label, *(number_with_z(row[m], m) if m in row else "-" for m in shown)] for label, row in minus.items()]
    return markdown([f"minus {table.baseline}", *(TITLES[metric][0] for metric in shown)], rows)


def as_csv(table: Comparison) -> str:
    """The same numbers, unrounded: a row per method; NAME, NAME_se, and minus the baseline with its error and z."""
    columns, rows = ["method", "images", "samples"], []
    for scores in table.methods:
        row: dict[str, object] = {"method": scores.label, "images": len(scores.names), "samples": scores.samples}
        for metric, estimate in table.means[scores.label].items():
            row |= {metric: estimate.value, f"{metric}_se": estimate.error}
        minus: Mapping[str, Estimate] = table.minus.get(scores.label, {})
        for metric, estimate in ((metric, minus[metric]) for metric in minus if metric in PAIRED):
            name = f"{metric}_minus_{table.baseline}"
            row |= {name: estimate.value, f"{name}_se": estimate.error, f"{name}_z": estimate.z}
        columns += [name for name in row if name not in columns]
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
