"""MCG: Chung, Sim, Ryu, Ye, "Improving Diffusion Models for Inverse Problems using Manifold Constraints" (2022)."""

from __future__ import annotations

from ...method.settings import check_number
from .combine import CombineNoisy
from .defaults import DEFAULT_STEP
from .known_error import ErrorDescent


class MCG(ErrorDescent, CombineNoisy):
    """x = mask * (x' - step * dL/dz) + (1 - mask) * q(y, t).

    x' is the sampler's step on x0_hat alone, L the length of the known region's error (see `known_error`) and q(y, t)
    the known image with fresh noise of the next state's level. MCG's paper runs 1,000 steps. Every step is one
    evaluation with its backward pass.

    Args:
        step: MCG's alpha as a multiple of dL/dz, 1 in its inpainting.
    """

    name = "mcg"

    def __init__(self, step: float = DEFAULT_STEP) -> None:
        super().__init__(check_number("step", step, 0.0, 1e3))
