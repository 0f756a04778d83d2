"""One guided sampling run inside the host: what happens at each model call.

Units are the host's. A state is `a*x0 + b*eps` with a and b read off `model_sampling.noise_scaling`; x0_hat is what the
guider returns (after CFG); the known region is kept by eq. 3 on x0_hat, and eq. 9 moves the sampler's next state.
"""
from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from ...gradpaint.known_region import combine_image
from ...gradpaint.schedule import guided_steps
from ...gradpaint.settings import GuidanceSettings
from ...gradpaint.step import displacement
from .differentiate import Differentiator
from .probe import SamplerPlan, Step
from .record import RunRecord
from .shift import HistoryShift

log = logging.getLogger(__name__)

PIXEL_RANGE = (-1.0, 1.0)


class GuidedRun:
    """The predict_noise wrapper, the sampler's callback and the last touch of one run. Used once, then dropped."""

    def __init__(self, guider, settings: GuidanceSettings, y: Tensor, mask: Tensor, sigmas: Tensor,
                 plan: SamplerPlan | None, callback=None):
        self.guider, self.settings, self.y, self.mask, self.plan = guider, settings, y, mask, plan
        self.sigmas = sigmas.clone()  # UniPC writes into the host's
        self.user_callback = callback
        self.model_sampling = guider.inner_model.model_sampling
        self.clip = PIXEL_RANGE if is_pixel_space(guider.inner_model) else None
        steps = plan.total if plan is not None else len(sigmas) - 1
        self.guided = guided_steps(settings.schedule, steps)
        self.record = RunRecord(steps=steps)
        self.differentiator = Differentiator(guider, settings.alignment, y)
        self.in_place = plan is not None and plan.in_place
        self.history = HistoryShift(plan.effects) if plan is not None and plan.effects is not None else None
        self.pending: Tensor | None = None  # eq. 9's displacement, waiting for the state it belongs to
        self.preview: Tensor | None = None
        self.last_mask = mask
        self._call = -1
        self._last_index = -1
        self._state_ptr: int | None = None

    # ---- the model calls

    def predict_noise(self, executor, x: Tensor, timestep: Tensor, model_options=None, seed=None) -> Tensor:
        """Host wrapper: x0_hat of the state x, composited, and on guided steps the gradient taken."""
        model_options = {} if model_options is None else model_options
        self._call += 1
        sigma = float(timestep.flatten()[0])
        step = self._step(sigma)
        mask = self.last_mask = self._mask_at(timestep, model_options)
        if step is not None and self.pending is not None:
            x += self.pending  # the sampler's own tensor: this is eq. 9's x_next
            self.pending = None
        self.record.evaluations += 1
        if step is None or not self.guided[step.index] or self.settings.alpha == 0:
            x0_hat, nudge = executor(x, timestep, model_options, seed), None
        else:
            x0_hat, nudge = self._differentiate(executor, x, timestep, model_options, seed, sigma, step, mask)
        x0_hat = x0_hat if self.clip is None else x0_hat.clamp(*self.clip)
        x0_hat = combine_image(x0_hat, self.y, mask)
        if step is not None:
            self.preview, self._state_ptr = x0_hat, x.data_ptr()
        if self.in_place:
            self.pending = self.pending if nudge is None else nudge  # a step's inner stages leave it waiting
            return x0_hat
        shift = self._shift(step, sigma, nudge)
        return x0_hat if shift is None else x0_hat + shift

    def _differentiate(self, executor, x, timestep, model_options, seed, sigma: float, step: Step, mask: Tensor):
        x0_hat, found = self.differentiator(executor, x, timestep, model_options, seed, sigma, mask)
        nudge, finite = displacement(found.grad, self.settings.alpha, self._scale(step.sigma_next),
                                     self.settings.normalization)
        record = self.record
        record.backwards += 1
        record.skipped_nudges += int((~finite).sum())
        record.guided_sigmas.append(sigma)
        for series, values in zip((record.total, record.mse, record.alignment), found.terms):
            series.append(values.cpu())
        record.grad_rms.append(found.rms.cpu())
        if not bool(finite.all()):
            log.warning("GradPaint: gradient not finite at sigma %.4g; the step is taken without a nudge", sigma)
        return x0_hat, nudge

    # ---- around them

    def callback(self, i: int, denoised: Tensor, x: Tensor, total: int) -> None:
        """The sampler's callback: previews show x0_hat as composited, never the shifted one."""
        if self.in_place and self.plan.reported and x.data_ptr() != self._state_ptr:
            log.info("GradPaint: another wrapper hands the model a copy of the sampler's state; nudging through x0_hat")
            self.in_place, self.pending = False, None
        if self.user_callback is not None:
            self.user_callback(i, denoised if self.preview is None else self.preview, x, total)

    def finish(self, samples: Tensor) -> Tensor:
        """The run's result: the last step's displacement, then the known region exactly as given."""
        if self.pending is not None:
            end = self.sigmas[-1]
            back = self.model_sampling.inverse_noise_scaling
            samples = samples + (back(end, self.pending) - back(end, torch.zeros_like(self.pending)))
            self.pending = None
        if float(self.sigmas[-1]) == 0:
            samples = samples if self.clip is None else samples.clamp(*self.clip)
            # Where the mask is grey x0_hat has been mixed with y already: only the fully known part is put back.
            samples = torch.where(self.last_mask > 0, samples, self.y)
        return samples

    def _step(self, sigma: float) -> Step | None:
        if self.plan is not None:
            return self.plan.steps.get(self._call)
        # No plan: the first call at or below each noise level of the schedule is a step.
        index = int((self.sigmas[:-1] >= sigma * (1 - 1e-4)).sum()) - 1
        if index <= self._last_index or index < 0:
            return None
        self._last_index = index
        return Step(index, float(self.sigmas[index + 1]))

    def _shift(self, step: Step | None, sigma: float, nudge: Tensor | None) -> Tensor | None:
        """What to add to x0_hat where the state itself can't be moved."""
        if step is not None and self.history is not None:
            return self.history.shift(step.index, nudge)
        if nudge is None:
            return None
        # Nothing known of the sampler: Euler's response, at least a half, so that no shift is far beyond eq. 9.
        return nudge / max(1 - step.sigma_next / sigma, 0.5)

    def _scale(self, sigma: float) -> float:
        """s(sigma) = sqrt(a^2 + b^2), see gradpaint.step."""
        level = torch.tensor([sigma], dtype=torch.float32, device=self.y.device)
        one = torch.ones_like(level)
        a = self.model_sampling.noise_scaling(level, torch.zeros_like(one), one.clone())
        b = self.model_sampling.noise_scaling(level, one.clone(), torch.zeros_like(one))
        return math.hypot(float(a), float(b))

    def _mask_at(self, timestep: Tensor, model_options: dict) -> Tensor:
        function = model_options.get("denoise_mask_function")  # Differential Diffusion and its kin
        if function is None:
            return self.mask
        return function(timestep, self.mask, extra_options={"model": self.guider, "sigmas": self.sigmas})


def is_pixel_space(model) -> bool:
    """Whether the host's model denoises RGB images themselves, in [-1, 1]."""
    latent_format = model.latent_format
    return latent_format.latent_channels == 3 and getattr(latent_format, "spacial_downscale_ratio", 1) == 1
