"""One differentiated model call: x0_hat and the gradient of the loss in the state that it was computed from."""
from __future__ import annotations

import torch
from torch import Tensor

from ...gradpaint.gradient import LossGradient, loss_gradient
from ...gradpaint.losses import border_band
from ...gradpaint.settings import AlignmentSettings
from .attention import with_differentiable_attention
from .autograd import grad_enabled, ordinary

ADVICE = ("Take the model patches before GradPaint out one by one to find the one in the way, or set alpha to 0 to "
          "keep the known region without guidance.")


class Differentiator:
    """Made once per run, called at every step whose gradient is asked for."""

    def __init__(self, guider, alignment: AlignmentSettings, y: Tensor):
        self.guider, self.alignment, self.y = guider, alignment, y
        self._conds = None
        self._writes_in_place = self._foreign_tensors = False  # what the model turns out to need, see _adapts_to
        self._border: tuple[Tensor, Tensor] | None = None

    def __call__(self, executor, x: Tensor, timestep: Tensor, model_options: dict, seed, sigma: float,
                 mask: Tensor) -> tuple[Tensor, LossGradient]:
        """executor: the host's predict_noise; x: the state, unchanged; sigma: its noise level. One model evaluation."""
        conds = self.guider.conds
        if self._conds is None:
            self._conds = ordinary(conds)
        try:
            self.guider.conds = self._conds
            while True:
                try:
                    return self._gradient(executor, x, timestep, model_options, seed, sigma, mask)
                except RuntimeError as error:
                    if not self._adapts_to(error):
                        raise
                # this step is evaluated once more, outside the handler: the failed graph is free by now
        except RuntimeError as error:
            if "nference tensor" not in str(error) and "does not require grad" not in str(error):
                raise
            raise ValueError(f"GradPaint can't differentiate through this model: {error} {ADVICE}") from error
        finally:
            self.guider.conds = conds

    def _adapts_to(self, error: RuntimeError) -> bool:
        """Whether a way round the error is left to try; it is taken from here on."""
        if "modified by an inplace operation" in str(error) and not self._writes_in_place:
            self._writes_in_place = True
            return True
        if "nference tensor" in str(error) and not self._foreign_tensors:
            self._foreign_tensors = True
            return True
        return False

    def _gradient(self, executor, x, timestep, model_options, seed, sigma: float, mask: Tensor):
        """(x0_hat, LossGradient)."""
        with grad_enabled(self._writes_in_place, self._foreign_tensors):
            leaf = x.clone().requires_grad_(True)
            x0_hat = executor(leaf, ordinary(timestep), with_differentiable_attention(model_options), seed)
            if not x0_hat.requires_grad:
                raise ValueError("GradPaint can't differentiate through this model: a patch or wrapper on it cuts "
                                 f"the gradient off. {ADVICE}")
            y, mask = ordinary(self.y), ordinary(mask)
            found = loss_gradient(leaf, x0_hat, y, mask, self.alignment, sigma, self._band(mask))
        return x0_hat.detach(), found

    def _band(self, mask: Tensor) -> Tensor | None:
        if self.alignment.lambda_al == 0:
            return None
        if self._border is None or not torch.equal(self._border[0], mask):
            self._border = (mask, border_band(mask, self.alignment.border_width))
        return self._border[1]
