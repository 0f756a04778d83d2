"""What a reader of an evaluation's tables has to know, in sentences."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import torch

from .. import __version__
from .methodspec import MethodSpec
from .scoring import KNOWN_TOLERANCE

if TYPE_CHECKING:
    from .block import Evaluation


def notes(evaluation: Evaluation) -> list[str]:
    """One sentence or two each."""
    block = evaluation.block
    lines = [
        "+- is one standard error over images (samples of one image are averaged first); paired differences are over "
        "the images that both methods have, z in units of their error."
    ]
    if evaluation.no_lpips:
        lines.append(f"No LPIPS: {evaluation.no_lpips}")
    elif evaluation.no_lpips is None:
        lines.append(f"LPIPS with the {evaluation.scoring.net} network, of whole images; lower is better.")
    lines.append(
        "Seam: squared jump across the mask's border over that of the true images, pooled over images, error by "
        "jackknife; abs log seam: distance from 1 on a logarithmic scale, lower is better."
    )
    means = {} if evaluation.table is None else evaluation.table.means
    if any("fid" in row for row in means.values()):
        against = evaluation.scoring.fid_reference or "the true images"
        lines.append(
            f"FID against {against}, error by a jackknife over 20 groups of images; biased upward for few images, so "
            "compare only equal numbers."
        )
    if any("feature_variance" in row for row in means.values()):
        lines.append("Feature variance: over the samples of an image, mean over features, in units of 1e-3.")
    if any(spec.latent for spec in block.specs):
        lines.append(
            "A latent model: images are encoded, repainted as latents without the alignment loss, decoded, and pasted "
            "under the known pixels; s includes that. latent_copy is the encoded and decoded image itself."
        )
    clock = "processor time" if torch.device(block.setup.device).type == "cpu" else "wall-clock time"
    lines.append(f"s: {clock} per image in batches of up to {block.setup.batch}.")
    lines += _warnings(evaluation)
    lines.append(
        f"gradpaint {__version__}, torch {torch.__version__}, {platform.machine()}, {block.setup.device}, "
        f"{torch.get_num_threads()} CPU thread(s)."
    )
    return lines + ([f"Command: `{block.command}`"] if block.command else [])


def _warnings(evaluation: Evaluation) -> list[str]:
    lines = []
    for spec in evaluation.block.specs:
        skipped = _skipped(evaluation, spec)
        if skipped:
            lines.append(f"{spec.label}: {skipped} gradients were not finite and were left out.")
    for scores in evaluation.methods:
        worst = float(scores.values["known_error"].max())
        if worst > KNOWN_TOLERANCE:
            lines.append(f"{scores.label}: known pixels differ by up to {worst * 127.5:.0f} of 255; scored as it is.")
    return lines


def _skipped(evaluation: Evaluation, spec: MethodSpec) -> int:
    rows = [row for row in evaluation.folder.records.rows.values() if row["method"] == spec.label]
    return sum({(row["seed"], row["batch"]): row["skipped_nudges"] for row in rows}.values())
