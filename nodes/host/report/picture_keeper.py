"""What a run keeps for pictures of it: x0_hat of a few steps and, of a few guided ones, each loss term's gradient."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ....gradpaint.drawing.run_pictures import spread
from ....gradpaint.method.gradient import LossGradient
from ....gradpaint.method.term_maps import TermMaps, term_maps
from ..latents.packed import first_part

ESTIMATES, MAPS = 8, 4  # steps; a step with maps costs a second evaluation with its backward pass


class Keeper:
    """Made once per run. Tensors stay where they are until `close`, so that a GPU is not waited for.

    Nested latents: the first part (the video) is kept.
    """

    def __init__(self, guided: Sequence[bool], guider):
        self.guider = guider
        self.estimate_steps = frozenset(spread(range(len(guided)), ESTIMATES))
        self.map_steps = frozenset(spread([i for i, on in enumerate(guided) if on], MAPS))
        self.x0_hat: dict[int, Tensor] = {}
        self.maps: dict[int, TermMaps] = {}

    def estimate(self, i: int, x0_hat: Tensor) -> None:
        """x0_hat of step i, before compositing."""
        if i in self.estimate_steps:
            self.x0_hat[i] = self.first_part(x0_hat).detach().clone()

    def gradients(self, i: int, total: LossGradient, alignment: LossGradient | None, lambda_al: float) -> None:
        """Step i's; alignment: that term's alone, None where it is off."""
        total, alignment = (
            None if found is None else found._replace(grad=self.first_part(found.grad)) for found in (total, alignment)
        )
        self.maps[i] = term_maps(total, alignment, lambda_al)

    def first_part(self, t: Tensor) -> Tensor:
        return first_part(t, self.guider.conds)

    def close(self, record, mask: Tensor) -> None:
        """Hand everything to the RunRecord, on the CPU."""
        record.x0_hat = {i: x0_hat.float().cpu() for i, x0_hat in self.x0_hat.items()}
        record.maps = {
            i: TermMaps(*(None if part is None else part.cpu() for part in maps)) for i, maps in self.maps.items()
        }
        record.mask = self.first_part(mask)[:, :1].float().cpu()
        record.latent_format = self.guider.inner_model.latent_format
