"""The masked MSE (eq. 5): does the estimate agree with the known pixels?"""

from __future__ import annotations

from torch import Tensor

from .common import per_pixel, weighted_mean


def masked_mse(x0_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the known values, (B,). A sample without known pixels has loss 0."""
    return weighted_mean((x0_hat - y) ** 2, 1 - mask)


def masked_mse_eq5(x0_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Eq. 5 as printed: summed over channels, divided by the number n^2 of the image's pixels, (B,).

    Where the mask is gray both images are multiplied by 1 - mask before they are compared, so that the squared error
    weighs (1 - mask)^2. Of a video it is the mean over its frames.
    """
    return per_pixel(((x0_hat - y) * (1 - mask)) ** 2)
