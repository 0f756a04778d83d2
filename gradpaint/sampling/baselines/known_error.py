"""What MCG and DPS descend on: the length of the known part's error, per sample and unsquared.

    L = || sqrt(1 - mask) * (y - x0_hat) ||        sum over a sample's values; mask is 1 in the hole

Both papers write it for unit-variance states z. Where a state is x = a*x0 + b*eps it is x = s*z with
s = sqrt(a^2 + b^2) (see `gradpaint.method.step`), so that dL/dz = s * dL/dx, and z moving by -step * dL/dz is

    x_next moving by  -step * s(sigma_next) * s(sigma) * dL/dx.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...method.gradient import LossGradient
from ...method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from ...method.step import normalise, state_scale
from ..guide import Guide
from ..inpaint import StepRecord

# The masked MSE alone, differentiated at every step: L and its gradient follow from it, see `norm_displacement`.
EVERY_STEP = GuidanceSettings(alignment=AlignmentSettings(lambda_al=0.0), schedule=GuideSchedule.full())


def norm_displacement(
    found: LossGradient, mask: Tensor, step: float, scale: float, scale_next: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(what the next state moves by (B, ...), L (B,), which samples were usable (B,) bool).

    found: gradient of the masked MSE alone (lambda_al 0) in the state x; scale, scale_next: s(sigma), s(sigma_next).
    With W the sum of 1 - mask, L = sqrt(W * MSE), so dL = sqrt(W / MSE) / 2 * dMSE. A sample whose known part is met
    exactly, or whose gradient is not finite, does not move; only the latter counts as unusable.
    """
    g_hat, finite = normalise(found.grad)  # RMS 1
    mse = found.terms.mse.float()
    weight = (1 - mask).expand_as(found.grad).float().flatten(1).sum(1)
    slope = found.rms * (weight / torch.where(mse > 0, mse, 1.0)).sqrt() / 2  # rms is 0 where the MSE is
    finite = finite & slope.isfinite()
    length = torch.where(finite, -step * scale_next * scale * slope, 0.0).view((-1,) + (1,) * (g_hat.ndim - 1))
    return (length * g_hat).to(found.grad.dtype), (weight * mse).sqrt(), finite


class Descent(NamedTuple):
    """x0_hat of one step, what the next state moves by, and the step's record."""

    x0_hat: Tensor
    nudge: Tensor
    record: StepRecord


class ErrorDescent:
    """One differentiated evaluation after the other, for one run. settings of GradPaint play no part."""

    def __init__(self, denoiser, y: Tensor, mask: Tensor, levels: list[float], step: float):
        self.denoiser, self.mask, self.levels, self.step = denoiser, mask, levels, step
        self._guide = Guide(EVERY_STEP, y, mask, len(levels) - 1)
        self.skipped = 0

    @property
    def backwards(self) -> int:
        return self._guide.backwards

    def __call__(self, x: Tensor, i: int) -> Descent:
        """Step i's state x, at levels[i]."""
        x0_hat, found = self._guide.evaluate(self.denoiser, x, self.levels[i], i)
        scale, scale_next = (float(state_scale(sigma)) for sigma in self.levels[i : i + 2])
        nudge, norm, finite = norm_displacement(found, self.mask, self.step, scale, scale_next)
        self.skipped += int((~finite).sum())
        mse = found.terms.mse.cpu()
        record = StepRecord(
            step=i,
            sigma=self.levels[i],
            guided=True,
            total=norm.cpu(),
            mse=mse,
            alignment=torch.zeros_like(mse),
            grad_rms=found.rms.cpu(),
        )
        return Descent(x0_hat, nudge, record)
