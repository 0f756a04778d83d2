"""One model evaluation of a host-free run, differentiated where the plan says so."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ..method.decoders import View
from ..method.gradient import LossGradient, loss_gradient, x0_gradient
from ..method.losses import border_band
from ..method.plan import RunPlan, Step
from ..method.record import StepRecord, counted_titles
from ..method.term_maps import term_maps
from ..method.terms import Terms, without_decoded
from .inpaint_method import InpaintMethod

Denoiser = Callable[[Tensor, Tensor], Tensor]


class LearnsVariance(Protocol):
    """What a denoiser has besides its call if its network has learned the variance of the sampler's noise."""

    def evaluate(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor | None]:
        """x0_hat, and raw values for `learned_variance`; None from a network without them."""

    def learned_variance(self, values: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """The variance of the next state, in VE units, shaped like the values."""


class StepEvaluator:
    """Made once per run, called at each of its steps.

    Args:
        denoiser: See `inpaint`; with learned variance, see `LearnsVariance`.
        method, plan: The run's.
        y, mask: As in `inpaint`.
        view: See `inpaint`.
        map_steps: Guided steps whose gradient maps go into the record.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        method: InpaintMethod,
        plan: RunPlan,
        y: Tensor,
        mask: Tensor,
        view: View | None = None,
        map_steps: Collection[int] = (),
    ) -> None:
        self.denoiser, self.method, self.plan, self.y, self.mask, self.view = denoiser, method, plan, y, mask, view
        self.backwards = 0
        self.wants_variance = False
        self._variance_values: Tensor | None = None  # of the last evaluation, see `variance`
        self._map_steps = map_steps
        settings = method.settings
        self._gradient = "model" if settings is None else settings.gradient
        self._border = None if settings is None else border_band(mask, settings.alignment.border_width)

    def __call__(self, x: Tensor, step: Step) -> tuple[Tensor, StepRecord]:
        """x0_hat of the state x, and the step's record; where the step is guided, the plan is told the gradient."""
        record = StepRecord(step.index, step.sigma, self.plan.begin(step.index))
        level = torch.tensor(step.sigma, dtype=x.dtype, device=x.device)
        if not record.guided or self._gradient == "x0":
            with torch.no_grad():
                x0_hat = self._evaluated(self.denoiser, x, level)
            if not record.guided:
                return x0_hat, record
            terms = self.plan.terms_at(step.index)
            terms = terms if self.view is None else without_decoded(terms)
            gradient = x0_gradient(x0_hat, self.y, self.mask, terms, b=step.sigma, border=self._border)
        else:
            x0_hat, gradient = self._differentiated(x, level, record)
        self.plan.take(step.index, gradient, (1.0, step.sigma), self.mask)
        losses = self.method.recorded(gradient, self.mask)
        record.losses = {name: value.cpu() for name, value in losses.items()}
        record.titles = counted_titles(self.plan.terms_at(step.index))
        record.gradient_rms = gradient.rms.cpu()
        return x0_hat, record

    def variance(self, step: Step) -> Tensor | None:
        """Variance of the step's noise, shaped like the state, if the model has learned it and it is wanted."""
        if self._variance_values is None or step.sigma_next == 0:
            return None
        return cast(LearnsVariance, self.denoiser).learned_variance(self._variance_values, step.sigma, step.sigma_next)

    def _evaluated(self, denoiser: Denoiser, x: Tensor, level: Tensor) -> Tensor:
        self._variance_values = None  # another step's are none of this one
        learned = getattr(denoiser, "evaluate", None) if self.wants_variance else None
        if learned is None:
            return denoiser(x, level)
        x0_hat, values = learned(x, level)
        self._variance_values = None if values is None else values.detach()
        return x0_hat

    def _differentiated(self, x: Tensor, level: Tensor, record: StepRecord) -> tuple[Tensor, LossGradient]:
        denoiser = getattr(self.denoiser, "through_cond", self.denoiser) if self._gradient == "cond" else self.denoiser
        terms, maps = self.plan.terms_at(record.step), record.step in self._map_steps
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            x0_hat = self._evaluated(denoiser, leaf, level)
            gradient = self._loss_gradient(leaf, x0_hat, terms, record.sigma, retain_graph=maps)
            if maps:
                others = {
                    term.name: self._loss_gradient(leaf, x0_hat, terms, record.sigma, of=term.name, retain_graph=True)
                    for term in [term for term in terms if term.weight][1:]
                }
                self.backwards += len(others)
                drawn = term_maps(gradient, others, terms)
                record.maps = {name: values.cpu() for name, values in drawn.items()}
        self.backwards += 1
        return x0_hat.detach(), gradient

    def _loss_gradient(self, leaf: Tensor, x0_hat: Tensor, terms: Terms, sigma: float, **options: Any) -> LossGradient:
        return loss_gradient(
            leaf, x0_hat, self.y, self.mask, terms, sigma, border=self._border, view=self.view, **options
        )
