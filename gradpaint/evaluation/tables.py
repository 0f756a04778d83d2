"""Numbers with their errors as text, and Markdown tables."""

import math

TITLES = {
    "lpips": ("LPIPS", 4),  # metric -> heading, digits
    "fid": ("FID", 2),
    "masked_mse": ("masked MSE", 4),
    "masked_psnr": ("masked PSNR (dB)", 2),
    "seam_ratio": ("seam (1 is ideal)", 2),
    "seam_energy": ("seam energy", 2),
    "abs_log_seam": ("abs log seam", 3),
    "diversity_lpips": ("diversity, LPIPS", 4),
    "diversity_mse": ("diversity, MSE in the hole", 4),
    "forwards": ("evaluations, forward only", 0),
    "backwards": ("evaluations, forward and backward", 0),
    "seconds": ("s", 2),
}


def number(estimate, metric):
    """ "value +- standard error" with the metric's digits; no error where there is none."""
    digits = TITLES[metric][1]
    if not math.isfinite(estimate.error) or metric in ("forwards", "backwards"):
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} +- {estimate.error:.{digits}f}"


def markdown(header, rows):
    """A table of strings; every row has the header's length."""
    return "\n".join([_row(header), _row(["---"] * len(header)), *map(_row, rows)])


def _row(cells):
    return "| " + " | ".join(cells) + " |"
