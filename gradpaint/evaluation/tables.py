"""Numbers with their errors as text, and Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .metrics import Estimate

TITLES = {  # metric -> heading, digits
    "lpips": ("LPIPS", 4),
    "fid": ("FID", 2),
    "masked_mse": ("masked MSE", 4),
    "masked_psnr": ("masked PSNR (dB)", 2),
    "seam_ratio": ("seam (1 is ideal)", 2),
    "seam_energy": ("seam energy", 2),
    "abs_log_seam": ("abs log seam", 3),
    "diversity_lpips": ("diversity, LPIPS", 4),
    "diversity_mse": ("diversity, MSE in the hole", 4),
    "feature_variance": ("feature variance (x 1e-3)", 2),
    "forwards": ("evaluations, forward only", 0),
    "backwards": ("evaluations, forward and backward", 0),
    "seconds": ("s", 2),
}


def number(estimate: Estimate, metric: str) -> str:
    """ "value +- standard error" with the metric's digits; the value alone where there is no error."""
    digits = TITLES[metric][1]
    if not math.isfinite(estimate.error) or metric in ("forwards", "backwards"):
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} +- {estimate.error:.{digits}f}"


def number_with_z(estimate: Estimate, metric: str) -> str:
    """`number`, and the value in units of its error; "-" where there is no finite value."""
    if not math.isfinite(estimate.value):
        return "-"
    if not math.isfinite(estimate.error):
        return number(estimate, metric)
    return f"{number(estimate, metric)} (z {estimate.z:+.1f})"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of strings; every row has the header's length."""
    return "\n".join([_row(header), _row(["---"] * len(header)), *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
