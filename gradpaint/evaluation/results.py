"""Tables of an evaluation, from its records: results.md and results.csv.

An image is the unit: with several seeds its samples are averaged first, so a standard error is over images.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, field

import torch

from .fid import fid, jackknife_groups
from .metrics import Estimate, mean_estimate, paired_difference, seam_improvement, seam_ratio
from .tables import TITLES, markdown, number

METRICS = (
    "lpips",
    "fid",
    "masked_mse",
    "masked_psnr",
    "seam_ratio",
    "diversity_lpips",
    "diversity_mse",
    "forwards",
    "backwards",
    "seconds",
)
PAIRED = ("lpips", "fid", "masked_mse", "masked_psnr", "abs_log_seam", "seconds")


@dataclass
class MethodScores:
    """One method's scores over its images.

    names     the images that have all their samples.
    values    metric -> (N,), in the order of names: "lpips", "masked_mse", "masked_psnr", "seam_energy",
              "true_seam_energy", "known_error", "diversity_lpips", "diversity_mse", those that there are.
    costs     "forwards", "backwards", "seconds" -> (batches,), each a batch's mean per image; empty for results of
              others.  batches: (seed, first image) of each.
    features  (N * samples, D), image by image, for FID; or None.
    """

    label: str
    names: list
    values: dict
    costs: dict = field(default_factory=dict)
    batches: list = field(default_factory=list)
    features: torch.Tensor | None = None
    samples: int = 1


def collect(source, names, scorer, runs=None):
    """`MethodScores` of a `scoring.Source` from the records; None where not one image is complete."""
    names = [n for n in source.complete(names) if all(scorer.records.get(source.label, s, n) for s in source.files)]
    if not names:
        return None
    rows = [[scorer.records.get(source.label, seed, name) for seed in source.files] for name in names]
    wanted = {name: name for name in ("masked_mse", "masked_psnr", "seam_energy", "true_seam_energy", "known_error")}
    wanted["lpips"] = f"lpips_{scorer.net}"
    values = {
        metric: torch.tensor([[sample[key] for sample in row] for row in rows], dtype=torch.float64).mean(1)
        for metric, key in wanted.items()
        if all(key in sample for row in rows for sample in row)
    }
    spread = [scorer.diversity.get(source.label, name) for name in names]
    if len(source.files) > 1 and all(spread):
        for metric, key in (("diversity_lpips", wanted["lpips"]), ("diversity_mse", "mse")):
            if all(key in row for row in spread):
                values[metric] = torch.tensor([row[key] for row in spread], dtype=torch.float64)
    batches = _batches(source, names, runs)
    costs = (
        {
            key: torch.tensor([float(row[key]) for row in batches.values()])
            for key in ("forwards", "backwards", "seconds")
        }
        if batches
        else {}
    )
    return MethodScores(source.label, names, values, costs, list(batches), samples=len(source.files))


def _batches(source, names, runs):
    """(seed, first image) -> a record of that batch: its images were run and timed together."""
    rows = [runs.get(source.label, seed, name) for seed in source.files for name in names] if runs is not None else []
    return {(row["seed"], row["batch"]): row for row in rows if row is not None}


def estimates(scores, reference=None):
    """metric -> Estimate for one method. reference: features of the true images, for FID."""
    found = {}
    for metric in METRICS:
        if metric in scores.values:
            found[metric] = mean_estimate(scores.values[metric])
        elif metric in scores.costs:
            found[metric] = mean_estimate(scores.costs[metric])
        elif metric == "seam_ratio" and float(scores.values["true_seam_energy"].sum()) > 0:
            found[metric] = _seam_ratio(scores.values["seam_energy"], scores.values["true_seam_energy"])
        elif metric == "fid" and scores.features is not None and reference is not None:
            found[metric] = fid(scores.features, reference, jackknife_groups(len(scores.names), scores.samples))
    return found


def _seam_ratio(energy, truth):
    if len(energy) > 1:
        return seam_ratio(energy, truth)
    return Estimate(float(energy / truth), math.nan)


def differences(scores, base, reference=None):
    """metric -> Estimate of (scores - base), paired over the images that both have; {} for fewer than two."""
    common = [name for name in scores.names if name in set(base.names)]
    if len(common) < 2:
        return {}
    rows, other = _rows(scores, common), _rows(base, common)
    found = {}
    for metric in PAIRED:
        if metric in scores.values and metric in base.values:
            found[metric] = paired_difference(scores.values[metric][rows], base.values[metric][other])
    shared = [batch for batch in scores.batches if batch in base.batches]
    if len(shared) > 1:
        mine, theirs = (s.costs["seconds"][[s.batches.index(batch) for batch in shared]] for s in (scores, base))
        found["seconds"] = paired_difference(mine, theirs)
    energies = scores.values["seam_energy"][rows], base.values["seam_energy"][other]
    truth = scores.values["true_seam_energy"][rows]
    if all(float(part.sum()) > 0 for part in (*energies, truth)):
        found["abs_log_seam"] = seam_improvement(*energies, truth)
    if reference is not None and scores.features is not None and base.features is not None:
        found["fid"] = _fid_difference(scores, base, rows, other, reference)
    return found


def _rows(scores, names):
    where = {name: i for i, name in enumerate(scores.names)}
    return torch.tensor([where[name] for name in names])


def _fid_difference(scores, base, rows, other, reference):
    """Only where both have as many samples an image: FID depends on the number of images."""
    if scores.samples != base.samples:
        return Estimate(math.nan, math.nan)
    parts = [
        s.features.reshape(-1, s.samples, s.features.shape[1])[r].flatten(0, 1)
        for s, r in ((scores, rows), (base, other))
    ]
    return fid(parts[0], reference, jackknife_groups(len(rows), scores.samples), baseline=parts[1])


@dataclass
class Comparison:
    """All numbers of a table, each computed once.

    methods   list of `MethodScores`, in the order of the table.
    baseline  label of the method that the others are compared with.
    means     label -> metric -> Estimate.   minus: the same for the difference to the baseline; empty without one.
    """

    methods: list
    baseline: str
    means: dict
    minus: dict


def comparison(methods, baseline, reference=None):
    """`Comparison` of these `MethodScores`. reference: (N, D) features of true images, for FID."""
    base = next((scores for scores in methods if scores.label == baseline), None)
    others = [scores for scores in methods if base is not None and scores is not base]
    return Comparison(
        methods,
        baseline,
        {scores.label: estimates(scores, reference) for scores in methods},
        {scores.label: differences(scores, base, reference) for scores in others},
    )


def summary(table):
    """Markdown: a row per method with its means, standard errors and costs."""
    metrics = [metric for metric in METRICS if any(metric in row for row in table.means.values())]
    header = ["method", "images", *(TITLES[metric][0] for metric in metrics)]
    rows = []
    for scores in table.methods:
        row = table.means[scores.label]
        cells = [number(row[metric], metric) if metric in row else "-" for metric in metrics]
        rows.append([scores.label, str(len(scores.names)), *cells])
    return markdown(header, rows)


def paired(table):
    """Markdown: each method minus the baseline, with z; "" where there is nothing to compare."""
    found = {label: row for label, row in table.minus.items() if row}
    metrics = [metric for metric in PAIRED if any(metric in row for row in found.values())]
    if not metrics:
        return ""
    rows = [[label, *(_with_z(row[m], m) if m in row else "-" for m in metrics)] for label, row in found.items()]
    return markdown([f"minus {table.baseline}", *(TITLES[metric][0] for metric in metrics)], rows)


def _with_z(estimate, metric):
    if not math.isfinite(estimate.value):
        return "-"
    if not math.isfinite(estimate.error):
        return number(estimate, metric)
    return f"{number(estimate, metric)} (z {estimate.z:+.1f})"


def as_csv(table):
    """The same numbers, unrounded: a row per method; NAME, NAME_se, and minus the baseline with its error and z."""
    columns, rows = ["method", "images", "samples"], []
    for scores in table.methods:
        row = {"method": scores.label, "images": len(scores.names), "samples": scores.samples}
        for metric, estimate in table.means[scores.label].items():
            row |= {metric: estimate.value, f"{metric}_se": estimate.error}
        for metric, estimate in table.minus.get(scores.label, {}).items():
            name = f"{metric}_minus_{table.baseline}"
            row |= {name: estimate.value, f"{name}_se": estimate.error, f"{name}_z": estimate.z}
        columns += [name for name in row if name not in columns]
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
