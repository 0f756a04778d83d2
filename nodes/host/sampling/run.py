"""One guided sampling run inside ComfyUI: what happens at each model call.

Units are the host's. A state is `a*x0 + b*eps` with a and b read off `model_sampling.noise_scaling`; x0_hat is what the
guider returns (after CFG); the known region is kept by eq. 3 on x0_hat, and eq. 9 moves the sampler's next state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....gradpaint.method.gradient import LossGradient, x0_gradient
from ....gradpaint.method.known_region import combine_image
from ....gradpaint.method.plan import RunPlan, Step
from ....gradpaint.method.record import StepRecord, counted_titles
from ....gradpaint.method.terms import Terms, without_decoded
from ..latents.packed import component_shapes
from ..latents.space import PIXEL_RANGE, is_pixel_space
from ..memory.restart import StartOfStep
from ..report.clock import StepClock
from ..report.picture_keeper import Keeper
from ..report.record import RunRecord
from ..report.statistics import close_record
from .branches import through_positive
from .differentiate import Differentiator, ModelCall
from .run_setup import RunSetup
from .state_mover import StateMover
from .steps import StateLevels, StepCounter

log = logging.getLogger(__name__)

KNOWN_NOISE = 2  # added to the run's seed for eq. 4's noise; the sampler's own comes from seed or seed + 1


class GuidedRun:
    """The predict_noise wrapper, the sampler's callback and the last touch of one run. Used once, then dropped.

    Nothing here waits for the device: what the record holds is read at the end, and the adaptive early stop goes by a
    decision that is one guided step old where the model is not on the CPU.
    """

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup
        y, device = setup.y, setup.y.device
        self.model_sampling = setup.guider.inner_model.model_sampling
        self.clip = PIXEL_RANGE if is_pixel_space(setup.guider.inner_model) else None
        self.sigmas = setup.sigmas.clone()  # UniPC writes into the host's
        self.counter = StepCounter(setup.call_map, self.sigmas)
        self.plan = RunPlan(
            setup.settings,
            y,
            setup.mask,
            self.counter.total,
            first=setup.segment.first,
            after=setup.segment.after,
            resume=setup.resume,
            lag=int(device.type != "cpu"),
        )
        steps = [] if setup.call_map is None else setup.call_map.steps.values()
        planned = [sigma for step in steps for sigma in (step.sigma, step.sigma_next)]
        self.levels = StateLevels(self.model_sampling, planned + self.sigmas.tolist(), device)
        self.mover = StateMover(setup.call_map)
        self.clock = StepClock(device)
        self.record = RunRecord(steps=self.counter.total, memory=setup.ladder.record)
        self.keeper = Keeper(self.plan.planned(), setup.guider) if setup.keep_pictures else None
        self.differentiator = Differentiator(
            setup.guider, setup.settings.alignment, y, setup.ladder, setup.decode, setup.fine_mask
        )
        self.last_mask = setup.mask
        self.preview: Tensor | None = None
        self._generator = torch.Generator().manual_seed(((setup.seed or 0) + KNOWN_NOISE) % 2**64)

    # ---- the model calls

    def predict_noise(
        self,
        executor: Callable[..., Tensor],
        x: Tensor,
        timestep: Tensor,
        model_options: dict | None = None,
        seed: Any = None,
    ) -> Tensor:
        """Host wrapper: the estimate of the state x as the sampler is to have it; on guided steps the gradient too."""
        model_options = {} if model_options is None else model_options
        step = self.counter.step(timestep)
        mask = self.last_mask = self._mask_at(timestep, model_options)
        call = ModelCall(executor, x, timestep, model_options, seed)
        self.record.evaluations += 1
        if step is None:  # an inner stage of a step
            return self._to_sampler(call(), mask)
        record = self._begin(x, step, mask)
        if record.guided:
            x0_hat, gradient = self._differentiated(call, step, mask)
            self.plan.take(step.index, gradient, self.levels[step.sigma], mask)
            record.losses = self.setup.method.recorded(gradient, mask)
            record.titles = counted_titles(self.plan.terms_at(step.index))
            record.gradient_rms = gradient.rms
        else:
            x0_hat = call()
        if self.keeper is not None:
            self.keeper.estimate(record, x0_hat)
        displacement = self.setup.method.displacement(self.plan, step, self.levels, mask)
        estimate = self.preview = self._to_sampler(x0_hat, mask)
        return self.mover.depart(x, estimate, step, displacement)

    def _begin(self, x: Tensor, step: Step, mask: Tensor) -> StepRecord:
        """A step begins at x, the sampler's own tensor where the mover can reach it."""
        method = self.setup.method
        if method.replaces_state and not self.mover.in_place:
            raise ValueError(
                f"{method.name} replaces the known part of the sampler's state, but this sampler leaves its plan or "
                "is given copies of it; use another sampler, e.g. euler"
            )
        self.mover.arrive(x)
        if method.replaces_state and step.index > 0:  # the first state is noise over the latent as it is
            x.copy_(method.enter(x, self.setup.y, mask, self._draw(), self.levels[step.sigma]))
        record = StepRecord(step.index, step.sigma, self.plan.begin(step.index))
        self.record.history.append(record)
        pictured = record.guided and self._keeps_maps(step.index)
        self.clock.mark("pictured" if pictured else record.kind.value)
        return record

    def _keeps_maps(self, i: int) -> bool:
        return self.keeper is not None and i in self.keeper.map_steps

    def _to_sampler(self, x0_hat: Tensor, mask: Tensor) -> Tensor:
        x0_hat = x0_hat if self.clip is None else x0_hat.clamp(*self.clip)
        return self.setup.method.to_sampler(x0_hat, self.setup.y, mask)

    def _differentiated(self, call: ModelCall, step: Step, mask: Tensor) -> tuple[Tensor, LossGradient]:
        """x0_hat and its loss's gradient, in one model evaluation; that of "x0" where memory is short."""
        kind, gradient, terms = self.setup.settings.gradient, None, self.plan.terms_at(step.index)
        if kind == "x0":
            x0_hat = call()
        else:
            if kind == "cond":
                call = call._replace(model_options=through_positive(call.model_options, self.setup.guider))
            others = self._other_gradients(call, step, mask, terms) if self._keeps_maps(step.index) else {}
            x0_hat, gradient = self.differentiator(call, step.sigma, mask, terms)
            self.record.backwards += gradient is not None
            if self.keeper is not None and self._keeps_maps(step.index) and gradient is not None:
                self.keeper.gradients(self.record.history[-1], gradient, others, terms)
        if gradient is not None:
            return x0_hat, gradient
        if self.setup.method.needs_model_gradient:
            raise ValueError(
                "the gradient that mcg and dps need did not fit into memory; use gradpaint, which can do "
                "without, or a smaller image"
            )
        shapes = component_shapes(self.setup.guider.conds, x0_hat.shape)
        terms = terms if self.setup.decode is None else without_decoded(terms)
        level = self.levels[step.sigma]
        return x0_hat, x0_gradient(x0_hat, self.setup.y, mask, terms, *level, components=shapes)

    def _other_gradients(self, call: ModelCall, step: Step, mask: Tensor, terms: Terms) -> dict[str, LossGradient]:
        """Gradients of all terms but the first, each by an evaluation of its own: to keep one's graph for two would
        take more memory."""
        gradients = {}
        for term in [term for term in terms if term.weight][1:]:
            start = StartOfStep(call.model_options, call.x.device, self.setup.ladder.network)
            _, gradient = self.differentiator(call, step.sigma, mask, terms, of=term.name)
            start.restore()
            self.record.evaluations += 1
            self.record.backwards += gradient is not None
            if gradient is not None:
                gradients[term.name] = gradient
        return gradients

    # ---- around them

    def callback(self, i: int, denoised: Tensor, x: Tensor, total: int) -> None:
        """The sampler's callback: previews show the estimate as composited, never a shifted one."""
        if self.counter.callback():
            log.info(
                "GradPaint: the sampler does not follow its dry run; its states are displaced through x0_hat "
                "from here on"
            )
            self.mover.shift_from_here(history=False)
            self.plan.recount(self.counter.total)
        elif self.mover.is_given_copies(x):
            log.info(
                "GradPaint: another wrapper hands the model a copy of the sampler's state, which is displaced "
                "through x0_hat from here on"
            )
            self.mover.shift_from_here(history=True)
        if self.setup.callback is not None:
            self.setup.callback(i, denoised if self.preview is None else self.preview, x, total)

    def finish(self, samples: Tensor) -> Tensor:
        """The run's result: the last step's displacement, then the known region exactly as given."""
        method, end = self.setup.method, self.sigmas[-1]
        samples = self.mover.settle(samples, self.model_sampling, end)
        if self.setup.ends_clean:
            samples = samples if self.clip is None else samples.clamp(*self.clip)
            samples = method.end(samples, self.setup.y, self.last_mask)
        elif method.replaces_state:
            noised = self.model_sampling.noise_scaling(end, self._draw(), self.setup.y)
            noised = self.model_sampling.inverse_noise_scaling(end, noised)
            samples = combine_image(samples, noised, self.last_mask)
        close_record(self, samples)
        return samples

    def _draw(self) -> Tensor:
        """Noise for the known region, like the state; drawn on the CPU, as the host does."""
        return torch.randn(self.setup.y.shape, generator=self._generator).to(self.setup.y)

    def _mask_at(self, timestep: Tensor, model_options: dict) -> Tensor:
        function = model_options.get("denoise_mask_function")  # Differential Diffusion and its kin
        if function is None:
            return self.setup.mask
        sigmas = self.setup.segment.sigmas.to(self.sigmas)  # its thresholds are spread over the whole run
        return function(timestep, self.setup.mask, extra_options={"model": self.setup.guider, "sigmas": sigmas})
