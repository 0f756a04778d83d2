"""The numbers of a finished run. None of them is worth a picture: where one fails, the log says so."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import comfy.model_management
from torch import Tensor

from ....gradpaint.image.seam import border_contrast
from ....gradpaint.method.record import StepKind
from ..latents.packed import first_component

if TYPE_CHECKING:
    from ..sampling.run import GuidedRun

log = logging.getLogger(__name__)


def close_record(run: GuidedRun, samples: Tensor) -> None:
    """Fill in the run's record from its result, the samples."""
    record = run.record
    if run.setup.ends_clean:
        with never_fatal("the kept area"):
            record.known_error = known_error(samples, run.setup.y, run.last_mask)
        with never_fatal("the seam"):
            conds = run.setup.guider.conds
            result, mask = (first_component(t, conds) for t in (samples, run.last_mask))
            record.contrast = border_contrast(result.float(), mask[:, :1].float()).cpu()
    with never_fatal("the losses"):
        for step in record.history:
            step.losses = {name: value.cpu() for name, value in step.losses.items()}
            step.gradient_rms = None if step.gradient_rms is None else step.gradient_rms.cpu()
        record.skipped, record.stop = run.plan.skipped, run.plan.report()
        for step in record.history:  # on a GPU the stop is known a step late: what it then reuses moves nothing
            if step.reused and record.stop.reason == "loss" and run.plan.first + step.step >= record.stop.step:
                step.kind = StepKind.PLAIN
    with never_fatal("the pictures"):
        if run.keeper is not None:
            run.keeper.close(record, run.setup.y, run.last_mask)
    with never_fatal("the time"):
        record.seconds, record.step_seconds = run.clock.close()


def known_error(samples: Tensor, y: Tensor, mask: Tensor) -> float | None:
    """Largest difference from y where the mask is 0; None where it is 0 nowhere."""
    known = (mask == 0).expand_as(y)  # in all components of a nested latent
    return float((samples - y).abs().where(known, 0.0).max()) if bool(known.any()) else None


@contextlib.contextmanager
def never_fatal(what: str) -> Iterator[None]:
    """An error in the block is a warning in the log; what: what could not be measured."""
    try:
        yield
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception:
        log.warning("GradPaint: %s of this run could not be measured; the picture is not affected", what, exc_info=True)
