"""What a guided run reports when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ....gradpaint.method.adaptive_stop import StopReport
from ....gradpaint.method.term_maps import TermMaps
from ..memory.record import MemoryRecord


@dataclass
class RunRecord:
    """What a run did, for logs, reports and pictures. Loss terms are lists with one (B,) CPU tensor per guided step.

    stop: how guidance ended; seconds: of the whole run; step_seconds: of each step by kind (guided, kept, plain, and
    pictured: guided with gradient maps); known_error: the largest difference of the result from the given latent
    where nothing is to be repainted, in the model's units, None where all is; contrast: (B,), see
    `seam.border_contrast`, of the result in the model's units.

    The rest is there only for runs that were told to keep it (see `keep`), by step, on the CPU: x0_hat before
    compositing (B, C, ..., H, W) in the model's units, maps of the loss terms' gradients, the mask, the host's
    latent_format; the evaluations and backward passes made for the maps count like all others.
    """

    steps: int = 0
    evaluations: int = 0
    backwards: int = 0
    skipped_nudges: int = 0
    guided_sigmas: list[float] = field(default_factory=list)
    kept_sigmas: list[float] = field(default_factory=list)  # steps nudged in the last guided step's direction
    total: list[Tensor] = field(default_factory=list)
    mse: list[Tensor] = field(default_factory=list)
    alignment: list[Tensor] = field(default_factory=list)
    grad_rms: list[Tensor] = field(default_factory=list)
    memory: MemoryRecord = field(default_factory=MemoryRecord)
    stop: StopReport = field(default_factory=StopReport)
    seconds: float = 0.0
    step_seconds: dict[str, list[float]] = field(default_factory=dict)
    known_error: float | None = None
    contrast: Tensor | None = None
    sigmas: dict[int, float] = field(default_factory=dict)  # of the steps' states
    guided_steps: list[int] = field(default_factory=list)
    x0_hat: dict[int, Tensor] = field(default_factory=dict)
    maps: dict[int, TermMaps] = field(default_factory=dict)
    mask: Tensor | None = None
    latent_format: Any = None

    @property
    def last(self) -> RunRecord:
        """Itself, so that a node may take this or a LiveRecord."""
        return self

    def of(self, result) -> RunRecord:
        """Likewise."""
        return self


class LiveRecord:
    """The record of whichever run was made last with a patched MODEL or SAMPLER, which outlive their runs.

    An `on_record` callback. Nothing of a run is kept longer than till the next one begins, but for results that have
    been asked about.
    """

    def __init__(self):
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

    def of(self, result) -> RunRecord:
        """The record of the run behind a LATENT or IMAGE: the last one when asked the first time, which is right after
        that run, and still that one when asked again, whatever other runs there were."""
        values = result.get("samples") if isinstance(result, dict) else result
        return self._asked.setdefault(values, self._last) if isinstance(values, Tensor) else self._last
