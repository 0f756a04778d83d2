"""The edge match loss, this project's own: does the collage keep the edges that the model drew across the border?"""

from __future__ import annotations

from torch import Tensor

from ..known_region import combine_image
from ..settings import AlignmentSettings
from .common import BorderLoss, border_band, normalized_gradients, weighted_mean
from .masked_mse import masked_mse


def edge_match_loss(
    x0_hat: Tensor,
    y: Tensor,
    mask: Tensor,
    *,
    border_width: int = 1,
    softness: float = 0.0,
    border: Tensor | None = None,
) -> Tensor:
    """Squared difference between the normalized gradients (eq. 7) of collage and estimate along the border, (B,).

    Not the paper's eq. 6, which looks at the collage alone. Mean over the border band and over channels.

    Args:
        x0_hat: (B, C, ..., H, W), the estimate.
        y: Shaped like x0_hat, the known image.
        mask: Broadcasts to x0_hat.
        border_width: Pixels of the band on each side of the mask's edge.
        softness: See `normalized_gradients`.
        border: `border_band(mask, border_width)`, if the caller has it already.
    """
    border = border_band(mask, border_width) if border is None else border
    collage_dx, collage_dy = normalized_gradients(combine_image(x0_hat, y, mask), softness)
    hat_dx, hat_dy = normalized_gradients(x0_hat, softness)
    return weighted_mean((collage_dx - hat_dx) ** 2 + (collage_dy - hat_dy) ** 2, border)


def _with(x0_hat: Tensor, y: Tensor, mask: Tensor, border: Tensor | None, settings: AlignmentSettings) -> Tensor:
    return edge_match_loss(
        x0_hat, y, mask, border_width=settings.border_width, softness=settings.softness, border=border
    )


LOSS = BorderLoss(_with, "edge match", masked_mse)
