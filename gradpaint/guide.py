"""What guidance adds to each step of a host-free run: which evaluation is differentiated, and the nudge of eq. 9."""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from .gradient import LossGradient, loss_gradient, x0_gradient
from .losses import border_band
from .schedule import guided_steps, kept_steps
from .settings import GuidanceSettings
from .step import displacement, state_scale

Denoiser = Callable[[Tensor, Tensor], Tensor]


class Guide:
    """Made once per run. settings None: no step is guided."""

    def __init__(self, settings: GuidanceSettings | None, y: Tensor, mask: Tensor, steps: int):
        self.settings, self.y, self.mask = settings, y, mask
        self.backwards = self.skipped_nudges = 0
        self.guided = self.kept = [False] * steps
        self._grad: Tensor | None = None  # the last one taken
        if settings is not None:
            self.guided, self.kept = guided_steps(settings.schedule, steps), kept_steps(settings.schedule, steps)
            self._border = border_band(mask, settings.alignment.border_width)

    def evaluate(self, denoiser: Denoiser, x: Tensor, sigma: float, i: int) -> tuple[Tensor, LossGradient | None]:
        """x0_hat of step i's state x at noise level sigma, and what was found where the step is guided."""
        level = torch.tensor(sigma, dtype=x.dtype, device=x.device)
        if not self.guided[i] or self.settings.gradient == "x0":
            with torch.no_grad():
                x0_hat = denoiser(x, level)
            if not self.guided[i]:
                return x0_hat, None
            found = x0_gradient(x0_hat, self.y, self.mask, self.settings.alignment, b=sigma,
                                border=self._border)
        else:
            if self.settings.gradient == "cond":
                denoiser = getattr(denoiser, "through_cond", denoiser)
            with torch.enable_grad():
                leaf = x.detach().requires_grad_(True)
                x0_hat = denoiser(leaf, level)
                found = loss_gradient(leaf, x0_hat, self.y, self.mask, self.settings.alignment, sigma, self._border)
            x0_hat = x0_hat.detach()
            self.backwards += 1
        self._grad = found.grad
        return x0_hat, found

    def nudge(self, sigma_next: float, i: int) -> Tensor | None:
        """What eq. 9 adds to the state after step i, None where that is nothing."""
        if not self.guided[i] and not self.kept[i]:
            return None
        scale = float(state_scale(sigma_next))
        nudge, finite = displacement(self._grad, self.settings.alpha, scale, self.settings.normalization)
        self.skipped_nudges += int((~finite).sum())
        return nudge
