"""One guided sampling run inside the host: what happens at each model call.

Units are the host's. A state is `a*x0 + b*eps` with a and b read off `model_sampling.noise_scaling`; x0_hat is what the
guider returns (after CFG); the known region is kept by eq. 3 on x0_hat, and eq. 9 moves the sampler's next state.
"""
from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...gradpaint.gradient import loss_gradient
from ...gradpaint.known_region import combine_image
from ...gradpaint.losses import border_band
from ...gradpaint.schedule import guided_steps
from ...gradpaint.settings import GuidanceSettings
from ...gradpaint.step import displacement
from .autograd import grad_enabled, ordinary
from .probe import SamplerPlan, Step
from .shift import HistoryShift

log = logging.getLogger(__name__)

PIXEL_RANGE = (-1.0, 1.0)
# Attention kernels of the host that have no backward pass.
FORWARD_ONLY_ATTENTION = ("attention_sage", "attention3_sage", "attention_sage3", "attention_flash")

ADVICE = ("Take the model patches before GradPaint out one by one to find the one in the way, or set alpha to 0 to "
          "keep the known region without guidance.")


@dataclass
class RunRecord:
    """What a run did, for logs and reports. Loss terms are lists with one (B,) CPU tensor per guided step."""

    steps: int = 0
    evaluations: int = 0
    backwards: int = 0
    skipped_nudges: int = 0
    guided_sigmas: list[float] = field(default_factory=list)
    total: list[Tensor] = field(default_factory=list)
    mse: list[Tensor] = field(default_factory=list)
    alignment: list[Tensor] = field(default_factory=list)
    grad_rms: list[Tensor] = field(default_factory=list)


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
        self.in_place = plan is not None and plan.in_place
        self.history = HistoryShift(plan.effects) if plan is not None and plan.effects is not None else None
        self.pending: Tensor | None = None  # eq. 9's displacement, waiting for the state it belongs to
        self.preview: Tensor | None = None
        self.last_mask = mask
        self._call = -1
        self._last_index = -1
        self._state_ptr: int | None = None
        self._graph_conds = None
        self._writes_in_place = False
        self._border: tuple[Tensor, Tensor] | None = None

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
        conds = self.guider.conds
        if self._graph_conds is None:
            self._graph_conds = ordinary(conds)
        try:
            self.guider.conds = self._graph_conds
            found = self._gradient(executor, x, timestep, model_options, seed, sigma, mask)
            if found is None:  # from here on; this step is evaluated once more
                self._writes_in_place = True
                found = self._gradient(executor, x, timestep, model_options, seed, sigma, mask)
            x0_hat, found = found
        except RuntimeError as error:
            if "nference tensor" not in str(error) and "does not require grad" not in str(error):
                raise
            raise ValueError(f"GradPaint can't differentiate through this model: {error} {ADVICE}") from error
        finally:
            self.guider.conds = conds
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

    def _gradient(self, executor, x, timestep, model_options, seed, sigma: float, mask: Tensor):
        """(x0_hat, LossGradient), or None if the model turns out to overwrite what its own backward pass needs."""
        with grad_enabled(self._writes_in_place):
            leaf = x.clone().requires_grad_(True)
            x0_hat = executor(leaf, ordinary(timestep), with_differentiable_attention(model_options), seed)
            if not x0_hat.requires_grad:
                raise ValueError("GradPaint can't differentiate through this model: a patch or wrapper on it cuts "
                                 f"the gradient off. {ADVICE}")
            y, mask = ordinary(self.y), ordinary(mask)
            try:
                found = loss_gradient(leaf, x0_hat, y, mask, self.settings.alignment, sigma, self._band(mask))
            except RuntimeError as error:
                if self._writes_in_place or "modified by an inplace operation" not in str(error):
                    raise
                return None
        return x0_hat.detach(), found

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

    def _band(self, mask: Tensor) -> Tensor | None:
        if self.settings.alignment.lambda_al == 0:
            return None
        if self._border is None or not torch.equal(self._border[0], mask):
            self._border = (mask, border_band(mask, self.settings.alignment.border_width))
        return self._border[1]


def is_pixel_space(model) -> bool:
    """Whether the host's model denoises RGB images themselves, in [-1, 1]."""
    latent_format = model.latent_format
    return latent_format.latent_channels == 3 and getattr(latent_format, "spacial_downscale_ratio", 1) == 1


def with_differentiable_attention(model_options: dict) -> dict:
    """model_options in which attention kernels without a backward pass are replaced by PyTorch's.

    An override that somebody else has set is still called, with PyTorch's attention as the function to override; where
    its answer has no gradient though the query has one, PyTorch's is taken.
    """
    from comfy.ldm.modules.attention import attention_pytorch

    options = model_options.get("transformer_options", {})
    theirs = options.get("optimized_attention_override")

    def override(function, q, *args, **kwargs):
        kernel = attention_pytorch if function.__name__ in FORWARD_ONLY_ATTENTION else function
        if theirs is None:
            return kernel(q, *args, **kwargs)
        out = theirs(attention_pytorch, q, *args, **kwargs)
        return attention_pytorch(q, *args, **kwargs) if q.requires_grad and not out.requires_grad else out

    return {**model_options, "transformer_options": {**options, "optimized_attention_override": override}}
