"""The paper's rivals inside the host: the same wrappers as GradPaint's, with another known region and displacement.

combine_image   GradPaint without its nudge: eq. 3 on x0_hat.
combine_noisy   eq. 4: each state's known part is replaced by the latent, freshly noised to the state's level.
repaint         combine_noisy, stretch by stretch, see `repaint`.
mcg             combine_noisy, and each state moves against the gradient of the known part's error.
dps             that move alone; the known part is pasted in at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....gradpaint.method.known_region import combine_image, combine_noisy
from ....gradpaint.method.settings import GuidanceSettings
from ....gradpaint.sampling.baselines.known_error import EVERY_STEP, norm_displacement
from .probe import probe_sampler
from .run import GuidedRun
from .wrapper import GradPaintWrapper

UNGUIDED = GuidanceSettings(alpha=0.0)
KNOWN_NOISE = 2  # added to the run's seed for eq. 4's noise; the sampler's own comes from seed or seed + 1


class BaselineRun(GuidedRun):
    """x0_hat goes to the sampler as the model gave it; the known part is mixed in at the end."""

    def _with_known(self, x0_hat: Tensor, mask: Tensor) -> Tensor:
        return x0_hat

    def _end_with_known(self, samples: Tensor) -> Tensor:
        return combine_image(samples, self.y, self.last_mask)


class NoisyRun(BaselineRun):
    """combine_noisy."""

    def __init__(self, *arguments, seed: int | None):
        super().__init__(*arguments)
        self._generator = torch.Generator().manual_seed(((seed or 0) + KNOWN_NOISE) % 2**64)

    def _enter(self, x: Tensor, step, mask: Tensor) -> None:
        if not self.in_place:
            raise ValueError(
                "combine_noisy, repaint and mcg replace the known part of the sampler's state, but this "
                "sampler leaves its plan or is given copies of it; use another sampler, e.g. euler"
            )
        super()._enter(x, step, mask)
        if step.index > 0:  # the first state is noise over the latent as it is
            x.copy_(combine_noisy(x, self.y, mask, self.draw(), *self.levels[step.sigma]))

    def finish(self, samples: Tensor) -> Tensor:
        samples, end = super().finish(samples), self.sigmas[-1]
        if float(end) == 0:
            return samples
        noised = self.model_sampling.noise_scaling(end, self.draw(), self.y)
        return combine_image(samples, self.model_sampling.inverse_noise_scaling(end, noised), self.last_mask)

    def draw(self) -> Tensor:
        """Noise for the known part, like the state; drawn on the CPU, as the host does."""
        return torch.randn(self.y.shape, generator=self._generator).to(self.y)


class DescentRun(BaselineRun):
    """DPS: each state moves by -size * dL/dz, L the length of the known part's error (see `known_error`)."""

    def __init__(self, *arguments, size: float, **others):
        super().__init__(*arguments, **others)
        self._size = size
        self._move: tuple[Tensor, Tensor] | None = None  # of this step: displacement, usable samples

    def _evaluate(self, executor, x, timestep, model_options, seed, step, mask):
        before = self.record.backwards
        x0_hat, found = super()._evaluate(executor, x, timestep, model_options, seed, step, mask)
        if self.record.backwards == before:
            raise ValueError(
                "the gradient that mcg and dps need did not fit into memory; use gradpaint, which can do "
                "without, or a smaller image"
            )
        scales = self.levels.scale(step.sigma), self.levels.scale(step.sigma_next)
        nudge, norm, finite = norm_displacement(found, mask, self._size, *scales)
        self._move = nudge, finite
        return x0_hat, found._replace(terms=found.terms._replace(total=norm))

    def _nudge(self, step) -> Tensor | None:
        if step is None or self._move is None:
            return None
        (nudge, finite), self._move = self._move, None
        self._finite.append(finite)
        return nudge


class ManifoldRun(DescentRun, NoisyRun):
    """MCG: that move, then combine_noisy."""


class NoisyWrapper(GradPaintWrapper):
    """combine_noisy as a `sampler_sample` wrapper."""

    @staticmethod
    def _plan(sampler, guider, sigmas: Tensor, like: Tensor, seed=None):
        plan = probe_sampler(sampler, guider, sigmas, like, seed)
        if plan is None or not plan.in_place:
            name = getattr(getattr(sampler, "sampler_function", sampler), "__name__", type(sampler).__name__)
            raise ValueError(
                "combine_noisy, repaint and mcg replace the known part of the sampler's state, which "
                f"can't be reached in {name.removeprefix('sample_')}; use another sampler, e.g. euler, "
                "ddpm or dpmpp_2m, or another method"
            )
        return plan

    def _new_run(self, seed: int | None, before, *arguments) -> GuidedRun:
        return NoisyRun(*arguments, seed=seed)


class ManifoldWrapper(NoisyWrapper):
    """MCG."""

    def __init__(self, size: float, on_record=None, memory=None):
        super().__init__(EVERY_STEP, on_record, memory)
        self.size = size

    def _new_run(self, seed: int | None, before, *arguments) -> GuidedRun:
        return ManifoldRun(*arguments, size=self.size, seed=seed)


class DescentWrapper(GradPaintWrapper):
    """DPS."""

    def __init__(self, size: float, on_record=None, memory=None):
        super().__init__(EVERY_STEP, on_record, memory)
        self.size = size

    def _new_run(self, seed: int | None, before, *arguments) -> GuidedRun:
        return DescentRun(*arguments, size=self.size)
