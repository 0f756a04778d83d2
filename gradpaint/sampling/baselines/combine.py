"""The paper's two baselines without a gradient: combine-image (eq. 3) and combine-noisy (eq. 4)."""

from __future__ import annotations

from torch import Tensor

from ...method.known_region import combine_image, combine_noisy
from ...method.settings import GuidanceSettings
from ...method.step import Level
from ..inpaint_method import InpaintMethod


class CombineImage(InpaintMethod):
    """Eq. 3 alone: the known image replaces its part of every estimate."""

    name = "combine_image"

    def __init__(self) -> None:
        super().__init__(None)


class PastedAtTheEnd(InpaintMethod):
    """The sampler gets the estimate as the model gave it; the known image is mixed into the result, once."""

    def to_sampler(self, x0_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return x0_hat

    def end(self, samples: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return combine_image(samples, y, mask)


class CombineNoisy(PastedAtTheEnd):
    """Eq. 4: the known image, freshly noised to the state's level, replaces its part of every state."""

    name = "combine_noisy"
    replaces_state = True

    def __init__(self, settings: GuidanceSettings | None = None) -> None:
        super().__init__(settings)

    def enter(self, x: Tensor, y: Tensor, mask: Tensor, noise: Tensor, level: Level) -> Tensor:
        return combine_noisy(x, y, mask, noise, *level)
