"""What a run keeps for pictures of it: x0_hat of a few steps, the given latent for their collages (eq. 3), and of a few
guided steps each loss term's gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ....gradpaint.drawing.run_pictures import spread
from ....gradpaint.method.gradient import LossGradient
from ....gradpaint.method.record import StepKind, StepRecord
from ....gradpaint.method.term_maps import term_maps
from ....gradpaint.method.terms import Terms
from ..latents.packed import first_component
from .record import RunRecord

ESTIMATES, MAPS = 8, 4  # steps; a step with maps costs a second evaluation with its backward pass


class Keeper:
    """Made once per run. Tensors stay where they are until `close`, so that a GPU is not waited for.

    Nested latents: the first component (the video) is kept.
    """

    def __init__(self, kinds: Sequence[StepKind], guider: Any) -> None:
        self.guider = guider
        guided = [i for i, kind in enumerate(kinds) if kind is StepKind.GUIDED]
        self.estimate_steps = frozenset(spread(range(len(kinds)), ESTIMATES))
        self.map_steps = frozenset(spread(guided, MAPS))

    def estimate(self, record: StepRecord, x0_hat: Tensor) -> None:
        """A step's x0_hat, before compositing."""
        if record.step in self.estimate_steps:
            record.x0_hat = self._first(x0_hat).detach().clone()

    def gradients(
        self, record: StepRecord, total: LossGradient, others: Mapping[str, LossGradient], terms: Terms
    ) -> None:
        """A step's gradients; others: of each term that counts but the first one, alone."""
        kept = {name: self._of_first(gradient) for name, gradient in others.items()}
        record.maps = term_maps(self._of_first(total), kept, terms)

    def close(self, record: RunRecord, y: Tensor, mask: Tensor) -> None:
        """Bring everything to the CPU, the given latent and the mask too."""
        for step in record.history:
            step.x0_hat = None if step.x0_hat is None else step.x0_hat.float().cpu()
            step.maps = {name: values.cpu() for name, values in step.maps.items()}
        record.mask = self._first(mask)[:, :1].float().cpu()
        record.y = self._first(y).to("cpu", torch.float32, copy=True)
        record.latent_format = self.guider.inner_model.latent_format

    def _first(self, t: Tensor) -> Tensor:
        return first_component(t, self.guider.conds)

    def _of_first(self, gradient: LossGradient) -> LossGradient:
        return gradient._replace(gradient=self._first(gradient.gradient))
