"""Whether a model works on latents or on pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy.model_base import BaseModel

PIXEL_RANGE = (-1.0, 1.0)


def is_pixel_space(model: BaseModel) -> bool:
    """Whether the model denoises RGB images in PIXEL_RANGE."""
    latent_format = model.latent_format
    return latent_format.latent_channels == 3 and getattr(latent_format, "spacial_downscale_ratio", 1) == 1
