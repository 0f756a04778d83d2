"""What the benchmarks of the library share: methods on tensors in memory, and the tables of their scores.

The gradpaint package has to be importable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradpaint.evaluation.metrics import mean_estimate
from gradpaint.evaluation.results import Comparison, MethodScores, comparison, paired
from gradpaint.evaluation.scoring import score_tensors
from gradpaint.evaluation.tables import TITLES, markdown, number
from gradpaint.sampling.inpaint import inpaint

PAIRED = ("masked_mse", "lpips", "seam_energy", "abs_log_seam")
Method = Callable[[Tensor, Tensor, Tensor, int], object]


@dataclass
class MethodRun:
    """What one method gave for all images; evaluations and seconds (CPU time of this process) are per image.

    evaluations: of the model, of which `backwards` were also differentiated.
    """

    images: Tensor
    evaluations: float
    backwards: float
    seconds: float


def library_method(denoiser, sigmas: Tensor, **options) -> Method:
    """A method for `run_methods`: `sampling.inpaint.inpaint` with these options (method, sampler, settings, ...)."""

    def run(y: Tensor, mask: Tensor, noise: Tensor, seed: int):
        return inpaint(denoiser, y, mask, sigmas=sigmas, noise=noise, seed=seed, progress=False, **options)

    return run


def run_methods(
    methods: Mapping[str, Method],
    images: Tensor,
    masks: Tensor,
    seed: int = 0,
    batch_size: int = 8,
    on_batch: Callable[[str, int], object] | None = None,
) -> dict[str, MethodRun]:
    """Run every method on the same images, masks and starting noise.

    Args:
        methods: name -> callable (y, mask, noise, seed) -> result with .image, .evaluations, .backwards (see
            `library_method`). The hole of y is blanked before any method sees it.
        images: (N, C, H, W) in [-1, 1].
        masks: (N or 1, 1, H, W), 1 = repaint.
        seed: of the starting noise; also handed on (plus the batch's number) for what a method draws itself.
        batch_size: images per call.
        on_batch: called with (method name, images done), e.g. for a progress bar.
    """
    masks = masks.expand(len(images), *masks.shape[1:])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    runs = {}
    for name, method in methods.items():
        results, evaluations, backwards = [], 0, 0
        started = time.process_time()
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            y = torch.where(masks[batch] == 0, images[batch], torch.zeros_like(images[batch]))
            result = method(y, masks[batch], noise[batch], seed + start // batch_size)
            results.append(result.image)
            evaluations += result.evaluations * len(y)
            backwards += result.backwards * len(y)
            if on_batch is not None:
                on_batch(name, min(start + batch_size, len(images)))
        seconds, count = time.process_time() - started, len(images)
        runs[name] = MethodRun(torch.cat(results), evaluations / count, backwards / count, seconds / count)
    return runs


def scores_of(name: str, run: MethodRun, images: Tensor, masks: Tensor, net: str | None = "squeeze") -> MethodScores:
    """A run's scores; net: LPIPS network, None for none."""
    costs = {"forwards": run.evaluations - run.backwards, "backwards": run.backwards, "seconds": run.seconds}
    return score_tensors(name, run.images, images, masks, costs=costs, net=net)


def compared(
    runs: Mapping[str, MethodRun], images: Tensor, masks: Tensor, baseline: str, net: str | None = "squeeze"
) -> Comparison:
    """All runs' scores, against the baseline's."""
    return comparison([scores_of(name, run, images, masks, net) for name, run in runs.items()], baseline)


def summary_table(table: Comparison) -> str:
    """Markdown: each method's mean scores with standard errors over images, its cost per image."""
    metrics = [m for m in ("masked_mse", "masked_psnr", "lpips", "seam_ratio") if m in next(iter(table.means.values()))]
    header = ["method", *(TITLES[metric][0] for metric in metrics), "evaluations", "with backward", "CPU s"]
    rows = []
    for scores in table.methods:
        means = table.means[scores.label]
        costs = {name: mean_estimate(values).value for name, values in scores.costs.items()}
        rows.append(
            [
                scores.label,
                *(number(means[metric], metric) for metric in metrics),
                f"{costs['forwards'] + costs['backwards']:.0f}",
                f"{costs['backwards']:.0f}",
                f"{costs['seconds']:.2f}",
            ]
        )
    return markdown(header, rows)


def tables(table: Comparison) -> str:
    """Markdown: the summary, and each method minus the baseline with z."""
    return "\n\n".join(filter(None, [summary_table(table), paired(table, PAIRED)]))
