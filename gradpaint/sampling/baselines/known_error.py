"""What MCG and DPS descend on: the length of the known region's error, per sample and unsquared.

    L = || sqrt(1 - mask) * (y - x0_hat) ||        sum over a sample's values; mask is 1 in the hole

The papers of MCG and DPS write it for unit-variance states z. Where a state is x = a*x0 + b*eps it is x = s*z with
s = sqrt(a^2 + b^2) (see `gradpaint.method.step`), so that dL/dz = s * dL/dx, and z moving by -step * dL/dz is

    x_next moving by  -step * s(sigma_next) * s(sigma) * dL/dx.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...method.gradient import LossGradient
from ...method.plan import NoiseLevels, RunPlan, Step
from ...method.record import StepKind
from ...method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from ...method.step import normalize
from ...method.terms import MSE, TOTAL, Losses
from ..inpaint_method import InpaintMethod

# The masked MSE alone, differentiated at every step: L and its gradient follow from it, see `norm_displacement`.
EVERY_STEP = GuidanceSettings(alignment=AlignmentSettings(lambda_al=0.0), schedule=GuideSchedule.full())


class ErrorDescent(InpaintMethod):
    """Each state moves by -size * dL/dz. A mixin for DPS and MCG.

    Args:
        size: The step, as a multiple of dL/dz.
    """

    needs_model_gradient = True

    def __init__(self, size: float) -> None:
        super().__init__(EVERY_STEP)
        self.size = size

    def displacement(self, plan: RunPlan, step: Step, levels: NoiseLevels, mask: Tensor) -> Tensor | None:
        if plan.gradient is None or plan.kind(step.index) is not StepKind.GUIDED:
            return None
        scales = levels.scale(step.sigma), levels.scale(step.sigma_next)
        moved, finite = norm_displacement(plan.gradient, mask, self.size, *scales)
        plan.count_usable(finite)
        return moved

    def recorded(self, gradient: LossGradient, mask: Tensor) -> Losses:
        mse = gradient.losses[MSE].float()
        return {**gradient.losses, TOTAL: (_known_values(gradient, mask) * mse).sqrt()}


def norm_displacement(
    gradient: LossGradient, mask: Tensor, step: float, scale: float, scale_next: float
) -> tuple[Tensor, Tensor]:
    """What the next state moves by, (B, ...), and which samples were usable, (B,) bool.

    With W the sum of 1 - mask, L = sqrt(W * MSE), so dL = sqrt(W / MSE) / 2 * dMSE. A sample whose known region is met
    exactly, or whose gradient is not finite, does not move; only the latter counts as unusable.

    Args:
        gradient: Of the masked MSE alone, in the state x.
        mask: Broadcasts to x.
        step: A multiple of dL/dz.
        scale, scale_next: s(sigma) and s(sigma_next).
    """
    g_hat, finite = normalize(gradient.gradient)  # RMS 1
    mse = gradient.losses[MSE].float()
    weight = _known_values(gradient, mask)
    slope = gradient.rms * (weight / torch.where(mse > 0, mse, 1.0)).sqrt() / 2  # rms is 0 where the MSE is
    finite = finite & slope.isfinite()
    length = torch.where(finite, -step * scale_next * scale * slope, 0.0).view((-1,) + (1,) * (g_hat.ndim - 1))
    return (length * g_hat).to(gradient.gradient.dtype), finite


def _known_values(gradient: LossGradient, mask: Tensor) -> Tensor:
    """Sum of 1 - mask over each sample's values, (B,)."""
    return (1 - mask).expand_as(gradient.gradient).float().flatten(1).sum(1)
