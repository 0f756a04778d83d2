"""What a guided run reports when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ....gradpaint.method.adaptive_stop import StopReport
from ....gradpaint.method.known_region import combine_image
from ....gradpaint.method.record import StepRecord
from ..memory.record import MemoryRecord


@dataclass
class RunRecord:
    """What a run did, for logs, reports and pictures.

    Attributes:
        steps: How many it had.
        history: What each of them did, in order; tensors on the CPU once the run is over. A run that was told to keep
            it has estimates and gradient maps there, of some steps (see `picture_keeper`).
        evaluations: Of the model, those for gradient maps included.
        backwards: Backward passes through it, likewise.
        skipped: Samples whose displacement was left out, their gradient not being finite, over all steps.
        memory: How the guided steps made do with memory.
        stop: How guidance ended.
        seconds: Of the whole run.
        step_seconds: Of each step by kind: guided, reused, plain, and pictured: guided with gradient maps.
        known_error: Largest difference of the result from the given latent where nothing is to be repainted, in the
            model's units; None where all is, or if the run ended with noise.
        contrast: (B,), `seam.border_contrast` of the result in the model's units; None if the run ended with noise.
        mask, y, latent_format: Of a run that kept pictures: its mask, (B or 1, 1, ..., H, W), the given latent,
            (B, C, ..., H, W) in the model's units, and the host's format. Of a nested latent, the first component's.
    """

    steps: int = 0
    history: list[StepRecord] = field(default_factory=list)
    evaluations: int = 0
    backwards: int = 0
    skipped: int = 0
    memory: MemoryRecord = field(default_factory=MemoryRecord)
    stop: StopReport = field(default_factory=StopReport)
    seconds: float = 0.0
    step_seconds: dict[str, list[float]] = field(default_factory=dict)
    known_error: float | None = None
    contrast: Tensor | None = None
    mask: Tensor | None = None
    y: Tensor | None = None
    latent_format: Any = None

    @property
    def guided(self) -> list[StepRecord]:
        """The steps whose gradient was taken."""
        return [step for step in self.history if step.guided]

    @property
    def reused(self) -> list[StepRecord]:
        """The steps displaced along the last gradient."""
        return [step for step in self.history if step.reused]

    def losses(self, name: str) -> list[Tensor]:
        """A term's value, (B,), at each guided step."""
        return [step.losses[name] for step in self.guided]

    @property
    def x0_hat(self) -> dict[int, Tensor]:
        """The estimates that were kept, by step: (B, C, ..., H, W), before compositing, in the model's units."""
        return {step.step: step.x0_hat for step in self.history if step.x0_hat is not None}

    @property
    def collages(self) -> dict[int, Tensor]:
        """The same composited with the given latent (eq. 3)."""
        if self.y is None or self.mask is None:
            return {}
        return {i: combine_image(x0_hat, self.y, self.mask) for i, x0_hat in self.x0_hat.items()}

    @property
    def maps(self) -> dict[int, dict[str, Tensor]]:
        """The gradient maps that were kept, by step and term, see `term_maps`."""
        return {step.step: step.maps for step in self.history if step.maps}

    @property
    def last(self) -> RunRecord:
        """Itself, so that a node may take this or a LiveRecord."""
        return self

    def of(self, result: Any) -> RunRecord:
        """Likewise."""
        return self


class LiveRecord:
    """The record of whichever run was made last with a patched MODEL or SAMPLER, which outlive their runs.

    An `on_record` callback. Nothing of a run is kept longer than till the next one begins, but for results that have
    been asked about.
    """

    def __init__(self) -> None:
        self._last = RunRecord()
        self._asked = WeakTensorKeyDictionary()

    def __call__(self, record: RunRecord) -> None:
        """A run is over."""
        self._last = record

    def clear(self) -> None:
        """Another run begins."""
        self._last = RunRecord()

    @property
    def last(self) -> RunRecord:
        """The last run's; an empty one before any run is over."""
        return self._last

    def of(self, result: Any) -> RunRecord:
        """The record of the run behind a LATENT or IMAGE.

        The last one when asked the first time, which is right after that run, and still that one when asked again,
        whatever other runs there were.
        """
        values = result.get("samples") if isinstance(result, dict) else result
        return self._asked.setdefault(values, self._last) if isinstance(values, Tensor) else self._last
