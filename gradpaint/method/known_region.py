"""The known region: eqs. 3 and 4 of the paper.

`mask` is 1 where the image is repainted and 0 where it is known, as the paper's M. Gray values mix.
"""

from __future__ import annotations

from torch import Tensor


def combine_image(x0_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Eq. 3, the collage: the estimate in the hole, the known image elsewhere.

    Args:
        x0_hat: (B, C, ..., H, W), clean.
        y: Shaped like x0_hat, clean.
        mask: Broadcasts to them.

    Returns:
        y bit for bit where the mask is 0, x0_hat where it is 1.
    """
    return _mix(x0_hat, y, mask)


def combine_noisy(x: Tensor, y: Tensor, mask: Tensor, noise: Tensor, a: float, b: float) -> Tensor:
    """Eq. 4: the state in the hole, the known image brought to the state's noise level elsewhere.

    Args:
        x: (B, C, ..., H, W), a state `a*x0 + b*eps`.
        y: Shaped like x, clean.
        mask: Broadcasts to them.
        noise: Standard normal, shaped like x.
        a, b: VE: 1 and sigma; flow: 1 - sigma and sigma; unit variance: sqrt(alpha_bar) and sqrt(1 - alpha_bar).
    """
    return _mix(x, a * y + b * noise, mask)


def _mix(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    # Not torch.lerp: at mask 0 or 1 the result must be exact even where the other side is not finite.
    mixed = mask * inside + (1 - mask) * outside
    return mixed.where(mask < 1, inside).where(mask > 0, outside)
