"""The masked MSE (eq. 5): does the estimate agree with the known pixels?"""

from __future__ import annotations

from torch import Tensor

from .common import weighted_mean


def masked_mse(x0_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the known values, (B,). A sample without known pixels has loss 0."""
    return weighted_mean((x0_hat - y) ** 2, 1 - mask)
