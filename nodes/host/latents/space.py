"""What the numbers of a model's latents are."""

from __future__ import annotations

PIXEL_RANGE = (-1.0, 1.0)


def is_pixel_space(model) -> bool:
    """Whether the host's model denoises RGB images themselves, in [-1, 1]."""
    latent_format = model.latent_format
    return latent_format.latent_channels == 3 and getattr(latent_format, "spacial_downscale_ratio", 1) == 1
