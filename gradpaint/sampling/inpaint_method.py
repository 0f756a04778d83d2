"""What an inpainting method does with the known region and the loss: one object for the library and for ComfyUI.

A run makes its steps like this, and a method may change each line but the sampler's own:

    x = enter(x)                            the state, before the model sees it
    x0_hat = model(x)                       on guided steps with the gradient of the loss in x
    x = sampler's step(x, to_sampler(x0_hat))
    x = x + displacement                    eq. 9, or the method's own
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..method.gradient import LossGradient
from ..method.known_region import combine_image
from ..method.plan import NoiseLevels, RunPlan, Step
from ..method.settings import GuidanceSettings
from ..method.step import Level
from ..method.terms import Losses


class InpaintMethod:
    """GradPaint (eqs. 3, 8, 9), or combine-image (eq. 3 alone) without settings; the base of every other method.

    Args:
        settings: Which steps take a gradient, of what, and how far eq. 9 moves; None: no step is guided.
    """

    name = "gradpaint"
    replaces_state = False
    """Whether `enter` changes states: such a method can't use a sampler whose state is out of reach."""
    needs_model_gradient = False
    """Whether the method makes no sense where memory is too short for a backward pass."""

    def __init__(self, settings: GuidanceSettings | None = None) -> None:
        self.settings = settings

    def path(self, steps: int) -> list[int]:
        """The noise levels that a run visits, as indices into its steps + 1 levels: down by one, or back up."""
        return list(range(steps + 1))

    def enter(self, x: Tensor, y: Tensor, mask: Tensor, noise: Tensor, level: Level) -> Tensor:
        """The state as the model is to see it, for all states but the first. noise: fresh, standard normal, like x."""
        return x

    def to_sampler(self, x0_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """What the sampler gets as the estimate: the collage of eq. 3."""
        return combine_image(x0_hat, y, mask)

    def displacement(self, plan: RunPlan, step: Step, levels: NoiseLevels, mask: Tensor) -> Tensor | None:
        """What is added to the state that the step produces, None where that is nothing."""
        return plan.displacement(step, levels)

    def recorded(self, gradient: LossGradient, mask: Tensor) -> Losses:
        """The losses that the record of a guided step shows."""
        return gradient.losses

    def end(self, samples: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """The result of a finished run. Gray parts were mixed in every estimate: only what is all known is put back."""
        return torch.where(mask > 0, samples, y)
