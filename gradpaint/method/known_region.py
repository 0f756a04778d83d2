"""The known region: eqs. 3 and 4 of the paper.

`mask` is 1 where the image is repainted and 0 where it is known, so the paper's m is `1 - mask`. Grey values mix.
"""

from __future__ import annotations

from torch import Tensor


def combine_image(x0_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Eq. 3: the denoised estimate in the hole, the known image elsewhere.

    x0_hat, y: (B, C, H, W), clean images; mask: broadcastable to them, 1 = hole. Where mask is 0 the result is y bit
    for bit, where it is 1 it is x0_hat.
    """
    return _mix(x0_hat, y, mask)


def combine_noisy(x: Tensor, y: Tensor, mask: Tensor, noise: Tensor, a, b) -> Tensor:
    """Eq. 4: the state in the hole, the known image brought to the state's noise level elsewhere.

    x: (B, C, H, W), the state at a level where a state is `a*x0 + b*eps` (VE: a = 1, b = sigma; flow: a = 1 - sigma,
    b = sigma; unit variance: a = sqrt(alpha_bar), b = sqrt(1 - alpha_bar)); noise: standard normal, like x.
    """
    return _mix(x, a * y + b * noise, mask)


def _mix(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    # Not torch.lerp: at mask 0 or 1 the result must be exact even where the other side is not finite.
    mixed = mask * inside + (1 - mask) * outside
    return mixed.where(mask < 1, inside).where(mask > 0, outside)
