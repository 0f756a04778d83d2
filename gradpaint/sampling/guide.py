"""What guidance adds to each step of a host-free run: which evaluation is differentiated, and the nudge of eq. 9."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Callable

import torch
from torch import Tensor

from ..method.adaptive_stop import AdaptiveStop, StopReport
from ..method.decoders import View
from ..method.gradient import LossGradient, loss_gradient, x0_gradient
from ..method.losses import border_band
from ..method.plan import guided_steps, kept_steps
from ..method.settings import GuidanceSettings
from ..method.step import displacement, state_scale, step_size
from ..method.term_maps import TermMaps, term_maps

Denoiser = Callable[[Tensor, Tensor], Tensor]


class Guide:
    """Made once per run. settings None: no step is guided. view: see `samplers.inpaint`. keep_gradients: steps whose
    gradient maps go to `maps`, where they are guided."""

    def __init__(
        self,
        settings: GuidanceSettings | None,
        y: Tensor,
        mask: Tensor,
        steps: int,
        view: View | None = None,
        keep_gradients: Collection[int] = (),
    ):
        self.settings, self.y, self.mask = settings, y, mask
        self.backwards = self.skipped_nudges = 0
        self.guided = self.kept = [False] * steps
        self._grad: Tensor | None = None  # the last one taken
        self._keep = keep_gradients
        self.maps: dict[int, TermMaps] = {}
        self._stop: AdaptiveStop | None = None
        if settings is not None:
            self.guided, self.kept = guided_steps(settings.schedule, steps), kept_steps(settings.schedule, steps)
            self._border = border_band(mask, settings.alignment.border_width)
            if settings.schedule.mode == "adaptive":
                self._stop = AdaptiveStop(settings.schedule, y, mask, steps)
            off = dataclasses.replace(settings.alignment, lambda_al=0.0)
            self._alignment = off if settings.alignment.space == "off" else settings.alignment
            self._on_x0, self._view = self._alignment if view is None else off, view
        self._planned = self.guided

    def evaluate(self, denoiser: Denoiser, x: Tensor, sigma: float, i: int) -> tuple[Tensor, LossGradient | None]:
        """x0_hat of step i's state x at noise level sigma, and what was found where the step is guided."""
        level = torch.tensor(sigma, dtype=x.dtype, device=x.device)
        if not self.guided[i] or self.settings.gradient == "x0":
            with torch.no_grad():
                x0_hat = denoiser(x, level)
            if not self.guided[i]:
                return x0_hat, None
            found = x0_gradient(x0_hat, self.y, self.mask, self._on_x0, b=sigma, border=self._border)
        else:
            if self.settings.gradient == "cond":
                denoiser = getattr(denoiser, "through_cond", denoiser)
            with torch.enable_grad():
                leaf = x.detach().requires_grad_(True)
                x0_hat = denoiser(leaf, level)
                found = self._differentiate(leaf, x0_hat, sigma, i)
            x0_hat = x0_hat.detach()
            self.backwards += 1
        self._grad = found.grad
        if self._stop is not None:
            self._stop.update(i, found.terms.mse, 1.0, sigma)
            if self._stop.over():
                self.guided = self.guided[: i + 1] + [False] * len(self.guided[i + 1 :])
                self.kept = self.kept[: i + 1] + [False] * len(self.kept[i + 1 :])
        return x0_hat, found

    def _differentiate(self, leaf: Tensor, x0_hat: Tensor, sigma: float, i: int) -> LossGradient:
        known = leaf, x0_hat, self.y, self.mask, self._alignment, sigma, self._border
        if i not in self._keep:
            return loss_gradient(*known, view=self._view)
        found = loss_gradient(*known, view=self._view, retain_graph=True)
        weight, alignment = self._alignment.lambda_al, None
        if weight > 0:
            alignment = loss_gradient(*known, view=self._view, of="alignment")
            self.backwards += 1
        self.maps[i] = TermMaps(*(None if part is None else part.cpu() for part in term_maps(found, alignment, weight)))
        return found

    def nudge(self, sigma: float, sigma_next: float, i: int) -> Tensor | None:
        """What eq. 9 adds to the state after step i, from sigma to sigma_next; None where that is nothing."""
        if not self.guided[i] and not self.kept[i]:
            return None
        alpha = step_size(self.settings, (1.0, sigma), (1.0, sigma_next))
        nudge, finite = displacement(self._grad, alpha, float(state_scale(sigma_next)), self.settings.normalization)
        self.skipped_nudges += int((~finite).sum())
        return nudge if self._stop is None else self._stop.limited(nudge, i)

    def stop_report(self) -> StopReport:
        """How guidance ended; at the end of the run."""
        if self._stop is not None:
            report = self._stop.report(self._planned, sum(self.guided))
            return report if self.settings.gradient != "x0" else dataclasses.replace(report, saved=0)
        return StopReport(max((i + 1 for i, guided in enumerate(self._planned) if guided), default=0))
