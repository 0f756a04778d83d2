"""What happens around a run, by the way that it was entered. The base is a patched MODEL: Apply and the KSamplers.

The others are in `guided_sampler` (a SAMPLER), `ksample_segment` (KSampler (Advanced)) and `stretches` (RePaint).
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from ....gradpaint.method.plan import step_kinds
from ....gradpaint.method.record import StepKind
from ....gradpaint.method.settings import GuidanceSettings
from ..report.estimate import estimate, learn
from ..report.statistics import never_fatal
from ..report.words import log_lines
from . import unfinished
from .probe import CallMap, probe_sampler
from .run import GuidedRun
from .segment import Handover, Segment

log = logging.getLogger(__name__)


class EntryPoint:
    """Runs of a patched MODEL."""

    def may_guide(self, settings: GuidanceSettings) -> bool:
        """Whether any of its runs can have a guided step."""
        return StepKind.GUIDED in step_kinds(settings, 1)

    def prepare(self, guider: Any, settings: GuidanceSettings, noise: Tensor) -> None:
        """Before anything else of a run; the host has loaded the models."""

    def resume(self, latent: Tensor, sigmas: Tensor, adds_noise: bool) -> tuple[Segment, Handover | None]:
        """Which segment of a run this is, and what the ones before it hand over.

        Args:
            latent: As the sampler is given it.
            sigmas: Noise levels of the segment.
            adds_noise: The sampler adds noise to the latent; without it the run goes on from there.
        """
        before = None if adds_noise else unfinished.before(latent)
        if before is not None:
            log.info("GradPaint: goes on after step %d of a run that left its noise in", len(before.sigmas) - 1)
            earlier = before.sigmas[:-1].to(sigmas)
            steps = len(earlier) + len(sigmas) - 1
            return Segment(torch.cat([earlier, sigmas]), len(earlier), steps), before.handover
        if not adds_noise and float(sigmas[0]) > 0:
            log.warning(
                "GradPaint: no noise is added in this run, and its latent is from no GradPaint run that is "
                "remembered. Noise that is in the part to keep will stay there. To split a run have GradPaint "
                "make its first part too"
            )
        return Segment(sigmas, 0, len(sigmas) - 1), None

    def known(self, latent: Tensor, handover: Handover | None) -> Tensor:
        """The clean latent that says what to keep."""
        return latent if handover is None else handover.known.to(latent)

    def call_map(self, sampler: Any, guider: Any, sigmas: Tensor, like: Tensor, seed: int | None) -> CallMap | None:
        """See `probe_sampler`."""
        return probe_sampler(sampler, guider, sigmas, like, seed)

    def announce(self, run: GuidedRun) -> None:
        """Before the first step: what guidance will cost, or why there will be none."""
        expected = estimate(run)
        if expected is not None:
            log.info("GradPaint: %s", expected)
        if run.setup.settings.active and not any(term.weight for term in run.plan.terms):
            log.warning(
                "GradPaint: no loss is left to guide by: the masked MSE has weight 0, and the loss at the border is "
                "off on this model. Set lambda_mse above 0, or a space in GradPaint Alignment Loss"
            )

    def finished(self, run: GuidedRun, samples: Tensor) -> None:
        """A run is over; samples: its result."""
        if not run.setup.ends_clean:
            self.noise_left(run, samples)
        with never_fatal("the cost"):
            learn(run)
        with never_fatal("the summary"):
            for level, line in log_lines(run.record, run.plan.stop is not None):
                log.log(level, "GradPaint: %s", line)

    def noise_left(self, run: GuidedRun, samples: Tensor) -> None:
        """The run ended with noise in its result, for another segment."""
        unfinished.remember(run, samples, handover_of(run))
        if run.setup.settings.schedule.mode != "steps" and run.plan.guides:
            log.info(
                "GradPaint: noise is left, for a second part of the run. The guided share was counted over this "
                "part alone, not knowing the other; a number of steps would not depend on it"
            )


def handover_of(run: GuidedRun) -> Handover:
    """What a run with noise left hands on, in host memory."""
    progress = run.plan.progress()
    gradient = None if progress.gradient is None else progress.gradient.cpu()
    return Handover(run.setup.y.cpu(), progress._replace(gradient=gradient))
