"""The paper's alignment loss (eqs. 6 and 7): is the collage smooth across the border of the hole?"""

from __future__ import annotations

from torch import Tensor

from ..known_region import combine_image
from ..settings import AlignmentSettings
from .common import BorderLoss, normalized_gradients, per_pixel
from .masked_mse import masked_mse_eq5


def alignment_loss(x0_hat: Tensor, y: Tensor, mask: Tensor, *, softness: float = 0.0) -> Tensor:
    """Eq. 6 on the collage, per channel and averaged over channels, (B,).

        al = 1/n^2 * || Dx C * Dx(1-M) + Dy C * Dy(1-M) ||^2,       C = M * x0_hat + (1-M) * y

    D (eq. 7) is applied to collage and mask alike, so that at each pixel of the border this is the squared cosine
    between the collage's gradient and the mask's normal: smallest where nothing changes across the border. It is not
    zero at the true image.

    A soft mask has a gradient wherever its value changes, and unit-length there: its whole ramp counts as border. Of a
    video it is the mean over its frames.

    Args:
        x0_hat: (B, C, ..., H, W), the estimate.
        y: Shaped like x0_hat, the known image.
        mask: Broadcasts to x0_hat.
        softness: Of the collage's gradients, see `normalized_gradients`; 0 is the equation as printed.
    """
    dx, dy = normalized_gradients(combine_image(x0_hat, y, mask), softness)
    mask_dx, mask_dy = normalized_gradients(1 - mask)
    return per_pixel((dx * mask_dx + dy * mask_dy) ** 2) / x0_hat.shape[1]


def _with(x0_hat: Tensor, y: Tensor, mask: Tensor, border: Tensor | None, settings: AlignmentSettings) -> Tensor:
    return alignment_loss(x0_hat, y, mask, softness=settings.softness)


LOSS = BorderLoss(_with, "alignment loss (eq. 6)", masked_mse_eq5)
