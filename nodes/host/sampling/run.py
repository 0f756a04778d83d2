"""One guided sampling run inside the host: what happens at each model call.

Units are the host's. A state is `a*x0 + b*eps` with a and b read off `model_sampling.noise_scaling`; x0_hat is what the
guider returns (after CFG); the known region is kept by eq. 3 on x0_hat, and eq. 9 moves the sampler's next state.
"""

from __future__ import annotations

import dataclasses
import logging

import torch
from torch import Tensor

from ....gradpaint.image.seam import border_contrast
from ....gradpaint.method.adaptive_stop import AdaptiveStop, StopReport
from ....gradpaint.method.gradient import LossGradient, x0_gradient
from ....gradpaint.method.known_region import combine_image
from ....gradpaint.method.plan import guided_steps, kept_steps
from ....gradpaint.method.settings import GuidanceSettings, MemorySettings
from ....gradpaint.method.step import displacement, step_size
from ..latents.packed import first_part, part_shapes
from ..latents.space import PIXEL_RANGE, is_pixel_space
from ..memory.ladder import MemoryLadder
from ..memory.restart import StartOfStep
from ..report.clock import StepClock
from ..report.picture_keeper import Keeper
from ..report.record import RunRecord
from .branches import through_positive
from .differentiate import Differentiator
from .history_shift import HistoryShift
from .probe import SamplerPlan, Step
from .steps import StateLevels, StepCounter

log = logging.getLogger(__name__)


class GuidedRun:
    """The predict_noise wrapper, the sampler's callback and the last touch of one run. Used once, then dropped.

    Nothing here waits for the device: what the record holds is read at the end, and the adaptive early stop goes by a
    decision that is one guided step old where the model is not on the CPU.
    """

    def __init__(
        self,
        guider,
        settings: GuidanceSettings,
        y: Tensor,
        mask: Tensor,
        sigmas: Tensor,
        plan: SamplerPlan | None,
        callback=None,
        ladder: MemoryLadder | None = None,
    ):
        self.guider, self.settings, self.y, self.mask = guider, settings, y, mask
        self.sigmas = sigmas.clone()  # UniPC writes into the host's
        self.user_callback = callback
        self.model_sampling = guider.inner_model.model_sampling
        self.clip = PIXEL_RANGE if is_pixel_space(guider.inner_model) else None
        self.counter = StepCounter(plan, self.sigmas)
        self._schedule()
        self.clock = StepClock(y.device)
        self.record = RunRecord(steps=self.counter.total)
        self.ladder = ladder or MemoryLadder(MemorySettings(), guider.inner_model, y.device)
        self.record.memory = self.ladder.record
        self.differentiator = Differentiator(guider, settings.alignment, y, self.ladder)
        planned = [] if plan is None else [sigma for step in plan.steps.values() for sigma in step[1:]]
        self.levels = StateLevels(self.model_sampling, planned + self.sigmas.tolist(), y.device)
        self.in_place = plan is not None and plan.in_place
        self.reported = plan is not None and plan.reported
        self.history = HistoryShift(plan.effects) if plan is not None and plan.effects is not None else None
        self.pending: Tensor | None = None  # eq. 9's displacement, waiting for the state it belongs to
        self.preview: Tensor | None = None
        self.last_mask = mask
        self.stop: AdaptiveStop | None = None
        if settings.schedule.mode == "adaptive":
            self.stop = AdaptiveStop(settings.schedule, y, mask, self.counter.total, lag=int(y.device.type != "cpu"))
        self.keeper: Keeper | None = None
        self._grad: Tensor | None = None  # the last one taken
        self._finite: list[Tensor] = []  # (B,) bool for each nudge
        self._state_ptr: int | None = None

    def _schedule(self, end: int | None = None) -> None:
        """Which steps are guided; none from step `end` on."""
        total = self.counter.total
        off = [False] * total if not self.settings.active else None
        self.guided = off or guided_steps(self.settings.schedule, total)
        self.kept = off or kept_steps(self.settings.schedule, total)
        if end is not None:
            self.guided, self.kept = (
                [on and i < end for i, on in enumerate(steps)] for steps in (self.guided, self.kept)
            )

    @property
    def needs_model_gradient(self) -> bool:
        """Whether the model has to be made differentiable for this run."""
        return self.settings.gradient != "x0" and any(self.guided)

    def _kind(self, i: int) -> str:
        """What a step costs goes by this."""
        if self.guided[i]:
            return "pictured" if self.keeper is not None and i in self.keeper.map_steps else "guided"
        return "kept" if self.kept[i] else "plain"

    # ---- the model calls

    def predict_noise(self, executor, x: Tensor, timestep: Tensor, model_options=None, seed=None) -> Tensor:
        """Host wrapper: x0_hat of the state x, composited, and on guided steps the gradient taken."""
        model_options = {} if model_options is None else model_options
        step = self.counter.step(timestep)
        mask = self.last_mask = self._mask_at(timestep, model_options)
        if step is not None:
            self._enter(x, step, mask)
            self.record.sigmas[step.index] = step.sigma
            if self.stop is not None and self.guided[step.index] and self.stop.over():
                self._schedule(step.index)
            self.clock.mark(self._kind(step.index))
        self.record.evaluations += 1
        if step is not None and self.guided[step.index]:
            x0_hat, found = self._evaluate(executor, x, timestep, model_options, seed, step, mask)
            self._grad = found.grad
            self._note(step, found)
        else:
            x0_hat = executor(x, timestep, model_options, seed)
        if step is not None and self.keeper is not None:
            self.keeper.estimate(step.index, x0_hat)
        nudge = self._nudge(step)
        x0_hat = x0_hat if self.clip is None else x0_hat.clamp(*self.clip)
        x0_hat = self._with_known(x0_hat, mask)
        if step is not None:
            self.preview, self._state_ptr = x0_hat, x.data_ptr()
        if self.in_place:
            self.pending = self.pending if nudge is None else nudge  # a step's inner stages leave it waiting
            return x0_hat
        shift = self._shift(step, nudge)
        return x0_hat if shift is None else x0_hat + shift

    def _enter(self, x: Tensor, step: Step, mask: Tensor) -> None:
        """A step begins at x, the sampler's own tensor where in_place: change it here."""
        if self.pending is not None:
            x += self.pending  # this is eq. 9's x_next
            self.pending = None

    def _with_known(self, x0_hat: Tensor, mask: Tensor) -> Tensor:
        """What the sampler gets as x0_hat: eq. 3."""
        return combine_image(x0_hat, self.y, mask)

    def _evaluate(self, executor, x, timestep, model_options, seed, step: Step, mask):
        """x0_hat and the gradient asked for, in one model evaluation; that of "x0" where memory is short."""
        kind, found = self.settings.gradient, None
        if kind == "x0":
            x0_hat = executor(x, timestep, model_options, seed)
        else:
            if kind == "cond":
                model_options = through_positive(model_options, self.guider)
            call = executor, x, timestep, model_options, seed, step.sigma, mask
            keep = self.keeper is not None and step.index in self.keeper.map_steps
            alignment = self._alignment_alone(*call) if keep else None
            x0_hat, found = self.differentiator(*call)
            self.record.backwards += found is not None
            if keep and found is not None:
                self.keeper.gradients(step.index, found, alignment, self.settings.alignment.lambda_al)
        if found is None:
            found = x0_gradient(
                x0_hat,
                self.y,
                mask,
                self.differentiator.without_decoder,
                *self.levels[step.sigma],
                parts=part_shapes(self.guider.conds, x0_hat.shape),
            )
        return x0_hat, found

    def _alignment_alone(self, executor, x: Tensor, timestep: Tensor, model_options: dict, *rest):
        """That term's gradient, by an evaluation of its own: to keep one's graph for two would take more memory."""
        if self.settings.alignment.lambda_al == 0:
            return None
        start = StartOfStep(model_options, x.device, self.ladder.network)
        _, found = self.differentiator(executor, x, timestep, model_options, *rest, of="alignment")
        start.restore()
        self.record.evaluations += 1
        self.record.backwards += found is not None
        return found

    def _nudge(self, step: Step | None) -> Tensor | None:
        """Eq. 9's displacement of the state that this step produces, None where there is none."""
        if step is None or self._grad is None or not (self.guided[step.index] or self.kept[step.index]):
            return None
        if self.kept[step.index]:
            self.record.kept_sigmas.append(step.sigma)
        alpha = step_size(self.settings, self.levels[step.sigma], self.levels[step.sigma_next])
        nudge, finite = displacement(self._grad, alpha, self.levels.scale(step.sigma_next), self.settings.normalization)
        self._finite.append(finite)
        return nudge if self.stop is None else self.stop.limited(nudge, step.index)

    def _note(self, step: Step, found: LossGradient) -> None:
        record = self.record
        record.guided_sigmas.append(step.sigma)
        record.guided_steps.append(step.index)
        for series, values in zip((record.total, record.mse, record.alignment), found.terms):
            series.append(values)
        record.grad_rms.append(found.rms)
        if self.stop is not None:
            self.stop.update(step.index, found.terms.mse, *self.levels[step.sigma])

    # ---- around them

    def callback(self, i: int, denoised: Tensor, x: Tensor, total: int) -> None:
        """The sampler's callback: previews show x0_hat as composited, never the shifted one."""
        if self.counter.callback():
            log.info("GradPaint: the sampler does not follow its dry run; nudging through x0_hat from here on")
            self.in_place, self.pending, self.history = False, None, None
            self._schedule()
        elif self.in_place and self.reported and x.data_ptr() != self._state_ptr:
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
            samples = self._end_with_known(samples)
        self._close_record(samples)
        return samples

    def _end_with_known(self, samples: Tensor) -> Tensor:
        # Where the mask is grey x0_hat has been mixed with y already: only the fully known part is put back.
        return torch.where(self.last_mask > 0, samples, self.y)

    def _close_record(self, samples: Tensor) -> None:
        record = self.record
        if float(self.sigmas[-1]) == 0:
            self._judge(samples)
        for series in (record.total, record.mse, record.alignment, record.grad_rms):
            series[:] = [values.cpu() for values in series]
        record.skipped_nudges = sum(int((~finite).sum()) for finite in self._finite)
        record.stop = self._stop_report()
        if self.keeper is not None:
            self.keeper.close(record, self.last_mask)
        record.seconds, record.step_seconds = self.clock.close()

    def _judge(self, samples: Tensor) -> None:
        """Kept area and border of the result, in the model's units."""
        known = (self.last_mask == 0).expand_as(self.y)  # in all parts of a nested latent
        if bool(known.any()):
            self.record.known_error = float((samples - self.y).abs().where(known, 0.0).max())
        result, mask = (first_part(t, self.guider.conds) for t in (samples, self.last_mask))
        self.record.contrast = border_contrast(result.float(), mask[:, :1].float()).cpu()

    def _stop_report(self) -> StopReport:
        self._schedule()  # as planned
        if self.stop is None or not any(self.guided):
            return StopReport(max((i + 1 for i, on in enumerate(self.guided) if on), default=0))
        report = self.stop.report(self.guided, len(self.record.guided_steps))
        return report if self.settings.gradient != "x0" else dataclasses.replace(report, saved=0)

    def _shift(self, step: Step | None, nudge: Tensor | None) -> Tensor | None:
        """What to add to x0_hat where the state itself can't be moved."""
        if step is not None and self.history is not None:
            return self.history.shift(step.index, nudge)
        if nudge is None:
            return None
        # Nothing known of the sampler: Euler's response, at least a half, so that no shift is far beyond eq. 9.
        return nudge / max(1 - step.sigma_next / step.sigma, 0.5)

    def _mask_at(self, timestep: Tensor, model_options: dict) -> Tensor:
        function = model_options.get("denoise_mask_function")  # Differential Diffusion and its kin
        if function is None:
            return self.mask
        return function(timestep, self.mask, extra_options={"model": self.guider, "sigmas": self.sigmas})
