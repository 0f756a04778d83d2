"""Several inpainting methods on the same images, masks and noise, as Markdown tables with paired standard errors."""

import time
from dataclasses import dataclass, field

import torch

from ..sampling.inpaint import inpaint
from .metrics import (
    lpips,
    masked_mse,
    masked_psnr,
    mean_estimate,
    paired_difference,
    seam_energy,
    seam_improvement,
    seam_ratio,
)
from .tables import TITLES, markdown, number


@dataclass
class MethodRun:
    """What one method gave for all images.

    images (N, C, H, W); evaluations: model evaluations per image, of which backwards were also differentiated;
    seconds: CPU time of this process per image; scores: metric name -> (N,).
    """

    images: torch.Tensor
    evaluations: float
    backwards: float
    seconds: float
    scores: dict = field(default_factory=dict)


def library_method(denoiser, sigmas, **options):
    """A method for `run_methods`: `sampling.inpaint.inpaint` with these options (method, sampler, settings, ...)."""

    def run(y, mask, noise, seed):
        return inpaint(denoiser, y, mask, sigmas=sigmas, noise=noise, seed=seed, progress=False, **options)

    return run


def run_methods(methods, images, masks, seed=0, batch_size=8, on_batch=None):
    """Run every method on the same images, masks and starting noise.

    methods     name -> callable (y, mask, noise, seed) -> result with .image, .evaluations, .backwards (see
                `library_method`). The hole of y is blanked before any method sees it.
    images      (N, C, H, W) in [-1, 1].
    masks       (N or 1, 1, H, W), 1 = repaint.
    seed        of the starting noise; also handed on (plus the batch's number) for what a method draws itself.
    batch_size  images per call.
    on_batch    called with (method name, images done), e.g. for a progress bar.

    Returns name -> MethodRun without scores.
    """
    if not methods:
        raise ValueError("methods is empty; give at least one")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    masks = masks.expand(len(images), *masks.shape[1:])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    runs = {}
    for name, method in methods.items():
        parts, evaluations, backwards = [], 0, 0
        started = time.process_time()
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            y = torch.where(masks[part] == 0, images[part], torch.zeros_like(images[part]))
            result = method(y, masks[part], noise[part], seed + start // batch_size)
            parts.append(result.image)
            evaluations += result.evaluations * len(y)
            backwards += result.backwards * len(y)
            if on_batch is not None:
                on_batch(name, min(start + batch_size, len(images)))
        seconds = time.process_time() - started
        count = len(images)
        runs[name] = MethodRun(torch.cat(parts), evaluations / count, backwards / count, seconds / count)
    return runs


def score(runs, images, masks, with_lpips=True):
    """Fill in every run's scores: masked_mse, masked_psnr, seam_energy and, if asked for, lpips; each (N,).

    Returns the true images' seam energies, (N,).
    """
    masks = masks.expand(len(images), *masks.shape[1:])
    for run in runs.values():
        run.scores["masked_mse"] = masked_mse(run.images, images, masks)
        run.scores["masked_psnr"] = masked_psnr(run.images, images, masks)
        run.scores["seam_energy"] = seam_energy(run.images, masks)
        if with_lpips:
            run.scores["lpips"] = lpips(run.images, images)
    return seam_energy(images, masks)


def summary_table(runs, true_energy):
    """Markdown: each method's mean scores with standard errors over images, its cost per image."""
    first = next(iter(runs.values())).scores
    names = [name for name in ("masked_mse", "masked_psnr", "lpips") if name in first]
    titles = [TITLES[name][0] for name in [*names, "seam_ratio"]]
    header = ["method", *titles, "evaluations", "with backward", "CPU s"]
    rows = []
    for method, run in runs.items():
        scores = [number(mean_estimate(run.scores[name]), name) for name in names]
        seam = number(seam_ratio(run.scores["seam_energy"], true_energy), "seam_ratio")
        cost = [f"{run.evaluations:.0f}", f"{run.backwards:.0f}", f"{run.seconds:.2f}"]
        rows.append([method, *scores, seam, *cost])
    return markdown(header, rows)


def paired_statistics(runs, true_energy, baseline):
    """method -> metric -> Estimate of (method - baseline), paired over images; negative is better everywhere.

    Metrics: masked_mse, lpips (if scored), seam_energy, and abs_log_seam (see `seam_improvement`).
    """
    if baseline not in runs:
        raise ValueError(f"baseline is {baseline!r}; it must be one of {', '.join(runs)}")
    base = runs[baseline].scores
    statistics = {}
    for method, run in runs.items():
        if method == baseline:
            continue
        row = {
            name: paired_difference(run.scores[name], base[name])
            for name in ("masked_mse", "lpips", "seam_energy")
            if name in base
        }
        row["abs_log_seam"] = seam_improvement(run.scores["seam_energy"], base["seam_energy"], true_energy)
        statistics[method] = row
    return statistics


def paired_table(runs, true_energy, baseline):
    """Markdown of `paired_statistics`: difference +- standard error (z)."""
    statistics = paired_statistics(runs, true_energy, baseline)
    if not statistics:
        return ""
    names = list(next(iter(statistics.values())))
    header = [f"minus {baseline}", *(TITLES[name][0] for name in names)]
    rows = [
        [method, *(f"{number(row[name], name)} (z {row[name].z:+.1f})" for name in names)]
        for method, row in statistics.items()
    ]
    return markdown(header, rows)


def compare(methods, images, masks, baseline, seed=0, batch_size=8, with_lpips=True, on_batch=None):
    """Run, score and tabulate. Returns (runs, Markdown text of both tables). Arguments as in `run_methods`, `score`."""
    runs = run_methods(methods, images, masks, seed=seed, batch_size=batch_size, on_batch=on_batch)
    true_energy = score(runs, images, masks, with_lpips=with_lpips)
    tables = summary_table(runs, true_energy), paired_table(runs, true_energy, baseline)
    return runs, "\n\n".join(table for table in tables if table)
