"""A run's record in words, for the report node and whoever asks."""

from __future__ import annotations

import logging
import math
import statistics

from torch import Tensor

from ....gradpaint.method.record import titles_of
from ....gradpaint.method.terms import MSE
from .estimate import ratio_of
from .record import RunRecord

ROUNDING = 1e-6  # of image values: not a change, what mixing a pixel with its equal leaves


def summary_lines(record: RunRecord) -> list[str]:
    """What the run did, what it cost and how well it ended, a line each."""
    if not record.steps:
        return [
            "no GradPaint run yet: the sampler behind this record has not run, had no mask, or made no steps. With "
            "Apply GradPaint and GradPaint Sampler connect the sampling node's result too: the report then waits "
            "for it"
        ]
    return [*_steps(record), *_cost(record), *_losses(record), *_result(record)]


def _steps(record: RunRecord) -> list[str]:
    guided, reused = len(record.guided), len(record.reused)
    line = f"steps: {record.steps}, of which guided {guided}"
    lines = [line + (f", displaced along the last gradient {reused}" if reused else "")]
    lines.append(f"end of guidance: {record.stop}" if guided else "end of guidance: no step was guided")
    if record.stop.samples and len(set(record.stop.samples)) > 1:
        lines.append("end of guidance, by image: step " + ", ".join(map(str, record.stop.samples)))
    lines.append(f"model evaluations: {record.evaluations}, of which with a backward pass {record.backwards}")
    if record.skipped:
        lines.append(
            f"displacements left out, their gradient not finite: {record.skipped} (try the model in bf16 or fp32)"
        )
    return lines


def _cost(record: RunRecord) -> list[str]:
    line = f"time: {record.seconds:.1f} s"
    plain, ratio = record.step_seconds.get("plain"), ratio_of(record)
    if ratio is not None:
        line += f"; a guided step {ratio:.2f} plain ones"
    if plain:
        alone = statistics.median(plain) * record.steps
        line += f"; about {sum(map(sum, record.step_seconds.values())) / alone:.2f} times a run without guidance"
    memory = record.memory
    if not memory.rungs:
        return [line, "memory: no step needed any for a backward pass"]
    times = "a step" if memory.repeats == 1 else f"{memory.repeats} steps"
    again = f"; {times} made again after running out of memory" if memory.repeats else ""
    return [line, f"memory: {memory.rungs[-1]}{_peak(record)}{again}"]


def _losses(record: RunRecord) -> list[str]:
    if not record.guided:
        return []
    lines = []
    for name, title in titles_of(record.guided).items():
        steps = [step for step in record.guided if name in step.titles]  # a term may end before guidance does
        if name == MSE or any(float(step.losses[name].max()) > 0 for step in steps):
            first, last = (f"{_mean(step.losses[name]):.4g} at step {step.step + 1}" for step in (steps[0], steps[-1]))
            lines.append(f"{title}: {first}, {last}")
    return lines


def _result(record: RunRecord) -> list[str]:
    if record.contrast is None:
        return ["the run ended before its last step, so its result is not judged"]
    kept = (
        "nothing was to be kept"
        if record.known_error is None
        else f"largest difference from the given latent {record.known_error:.2g}"
    )
    return [f"kept area: {kept}", seam_line("the latent", record.contrast)]


def seam_line(where: str, contrast: Tensor) -> str:
    """contrast: (B,), see `seam.border_contrast`."""
    found = [value for value in contrast.tolist() if math.isfinite(value)]
    if not found:
        return f"seam in {where}: no border to look at"
    by_image = f" ({', '.join(f'{value:.2f}' for value in found)})" if 1 < len(found) <= 8 else ""
    return f"seam in {where}: {statistics.fmean(found):.2f}{by_image}; about 1 is none"


def image_lines(image: Tensor, original: Tensor, mask: Tensor, contrast: Tensor) -> list[str]:
    """Of finished pictures (B, C, H, W) in [0, 1] against the originals, where mask (B, 1, H, W) is 0; contrast: of
    the pictures."""
    channels = min(image.shape[1], original.shape[1])
    difference = (image[:, :channels] - original[:, :channels].to(image)).abs().amax(1, keepdim=True)
    known = mask == 0
    if not bool(known.any()):
        return ["kept area of the image: nothing was to be kept", seam_line("the image", contrast)]
    changed = difference[known] * (difference[known] > ROUNDING)
    share, most = float((changed > 0).double().mean()), float(changed.max())
    return [
        f"image outside the mask: {100 * share:.2g}% of its pixels changed, by {most * 255:.3g} of 255 at most",
        seam_line("the image", contrast),
    ]


def _mean(values: Tensor) -> float:
    return float(values.float().mean())


def show_in_node(text: str, node_id: str | None) -> None:
    """Write text under the node in the browser that queued the prompt; nothing without a server or a node."""
    from server import PromptServer  # the server imports nodes; not the other way round, at import

    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id:
        server.send_progress_text(text, node_id)


def log_lines(record: RunRecord, adaptive: bool) -> list[tuple[int, str]]:
    """What the log says of a run that is over, each line with its level. adaptive: the stop was not known before."""
    lines = [
        (
            logging.INFO,
            f"{record.steps} steps, {len(record.guided)} guided, {record.evaluations} model evaluations, "
            f"{record.backwards} backward passes",
        )
    ]
    if adaptive:
        lines.append((logging.INFO, str(record.stop)))
    memory = record.memory
    if memory.rungs:
        lines.append((logging.INFO, f"memory: {memory.rungs[-1]}{_peak(record)}, {memory.repeats} steps made again"))
    if record.guided:
        first, last = record.losses(MSE)[0], record.losses(MSE)[-1]
        lines.append(
            (
                logging.INFO,
                f"masked MSE of x0_hat {_mean(first):.4g} at the first guided step, {_mean(last):.4g} at the last",
            )
        )
    if record.skipped:
        lines.append(
            (
                logging.WARNING,
                f"{record.skipped} displacements left out, their gradient not finite; try the model in bf16 or fp32",
            )
        )
    return lines


def _peak(record: RunRecord) -> str:
    memory = record.memory
    if memory.peak_bytes is None:
        return ""
    return f"; at most {memory.peak_bytes / 2**20:.1f} MiB in a guided step ({memory.peak_kind})"
