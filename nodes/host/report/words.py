"""A run's record in words, for the report node and whoever asks."""

from __future__ import annotations

import math
import statistics

from torch import Tensor

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
    guided, kept = len(record.guided_sigmas), len(record.kept_sigmas)
    line = f"steps: {record.steps}, of which guided {guided}"
    lines = [line + (f", nudged in a kept direction {kept}" if kept else "")]
    lines.append(f"end of guidance: {record.stop}" if guided else "end of guidance: no step was guided")
    if record.stop.samples and len(set(record.stop.samples)) > 1:
        lines.append("end of guidance, by image: step " + ", ".join(map(str, record.stop.samples)))
    lines.append(f"model evaluations: {record.evaluations}, of which with a backward pass {record.backwards}")
    if record.skipped_nudges:
        lines.append(
            f"nudges left out, their gradient not finite: {record.skipped_nudges} (try the model in bf16 or fp32)"
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
    peak = (
        ""
        if memory.peak_bytes is None
        else (f"; at most {memory.peak_bytes / 2**20:.1f} MiB in a guided step ({memory.peak_kind})")
    )
    times = "a step" if memory.repeats == 1 else f"{memory.repeats} steps"
    again = f"; {times} made again after running out of memory" if memory.repeats else ""
    return [line, f"memory: {memory.rungs[-1]}{peak}{again}"]


def _losses(record: RunRecord) -> list[str]:
    if not record.mse:
        return []
    lines = [
        f"masked MSE of x0_hat (eq. 5): {_mean(record.mse[0]):.4g} at the first guided step, "
        f"{_mean(record.mse[-1]):.4g} at the last"
    ]
    if any(float(term.max()) > 0 for term in record.alignment):
        lines.append(
            f"alignment loss (eq. 6): {_mean(record.alignment[0]):.4g} at the first guided step, "
            f"{_mean(record.alignment[-1]):.4g} at the last"
        )
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
