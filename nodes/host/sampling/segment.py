"""A segment of a run that several nodes share, and what one segment hands on to the next."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ....gradpaint.method.plan import Progress


class Segment(NamedTuple):
    """Some of a run's steps.

    Attributes:
        sigmas: Noise levels of the whole run, as far as it is known.
        first, last: Steps of it after which the segment begins and ends.
    """

    sigmas: Tensor
    first: int
    last: int

    @property
    def after(self) -> int:
        """Number of the run's steps after this segment."""
        return max(len(self.sigmas) - 1 - self.last, 0)

    @property
    def is_empty(self) -> bool:
        """Whether it has no step."""
        return self.first >= min(self.last, len(self.sigmas) - 1)


class Handover(NamedTuple):
    """What a later segment needs.

    Attributes:
        known: The clean latent, as ComfyUI's samplers see it.
        progress: The plan's.
        noisy: The samples beside it in the LATENT, by which that is known again.
    """

    known: Tensor
    progress: Progress
    noisy: Tensor | None = None
