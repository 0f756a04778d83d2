"""The loss terms, one file each, and what they share. Every loss is per sample: (B, C, ..., H, W) -> (B,).

`mask` is 1 in the hole and 0 where the image is known, as the paper's M. It broadcasts to the images; grays weigh.
"""

from .alignment import alignment_loss
from .common import (
    BorderLoss,
    border_band,
    check_shapes,
    image_gradients,
    normalized_gradients,
    per_pixel,
    weighted_mean,
)
from .edge_match import edge_match_loss
from .masked_mse import masked_mse, masked_mse_eq5

__all__ = [
    "BorderLoss",
    "alignment_loss",
    "border_band",
    "check_shapes",
    "edge_match_loss",
    "image_gradients",
    "masked_mse",
    "masked_mse_eq5",
    "normalized_gradients",
    "per_pixel",
    "weighted_mean",
]
