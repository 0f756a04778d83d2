"""DPS: Chung, Kim, Mccann, Klasky, Ye, "Diffusion Posterior Sampling for General Noisy Inverse Problems" (2023)."""

from __future__ import annotations

from ...method.settings import check_number
from .combine import PastedAtTheEnd
from .defaults import DEFAULT_ZETA
from .known_error import ErrorDescent


class DPS(ErrorDescent, PastedAtTheEnd):
    """x = x' - zeta * dL/dz. Not among the methods of the GradPaint paper.

    x' is the sampler's step on x0_hat alone, L the length of the known region's error (see `known_error`). Nothing is
    projected: the known pixels are pasted into the result at the end only, once, for a fair comparison. Every step is
    one evaluation with its backward pass.

    Args:
        zeta: 0.5 in DPS's paper for inpainting, with 1,000 steps.
    """

    name = "dps"

    def __init__(self, zeta: float = DEFAULT_ZETA) -> None:
        super().__init__(check_number("zeta", zeta, 0.0, 1e3))
