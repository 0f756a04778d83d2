"""Conversions between the host's IMAGE, MASK and LATENT and the library's tensors. Errors name the shapes.

The host's IMAGE is (B, H, W, C) in [0, 1]. MASK is (B, H, W), 1 = repaint. LATENT is a dict with "samples",
(B, C, H, W) or (B, C, T, H, W), and optionally "noise_mask"; both can be nested (video and audio). The library's images
are (B, C, H, W) in [-1, 1], its masks (B, 1, H, W).
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ....gradpaint.image.crop import resize_mask
from .mask_check import is_empty

log = logging.getLogger(__name__)


def image_to_tensor(image: Tensor) -> Tensor:
    """Convert IMAGE (B, H, W, C) in [0, 1] to (B, 3, H, W) in [-1, 1], without an alpha channel."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise ValueError(f"image has shape {tuple(image.shape)}, but must be (batch, height, width, 3 or 4)")
    return rearrange(image[..., :3].float() * 2 - 1, "b h w c -> b c h w")


def tensor_to_image(x: Tensor) -> Tensor:
    """Convert (B, 3, H, W) in [-1, 1] to IMAGE (B, H, W, 3) in [0, 1], clipped, on the CPU."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"image tensor has shape {tuple(x.shape)}, but must be (batch, 3, height, width)")
    return rearrange((x.float() + 1) / 2, "b c h w -> b h w c").clamp(0, 1).cpu().contiguous()


def mask_to_tensor(mask: Tensor) -> Tensor:
    """Convert MASK (B, H, W) or (H, W), or a stored noise mask (B, 1, H, W), to (B, 1, H, W), as the host reads it."""
    if mask.ndim < 2 or mask.ndim > 4 or (mask.ndim == 4 and mask.shape[1] != 1):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but must be (height, width), (batch, height, width) "
            "or (batch, 1, height, width)"
        )
    return mask.reshape(-1, 1, mask.shape[-2], mask.shape[-1])


def tensor_to_mask(mask: Tensor) -> Tensor:
    """Convert (B, 1, H, W) to MASK (B, H, W), on the CPU."""
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"mask tensor has shape {tuple(mask.shape)}, but must be (batch, 1, height, width)")
    return mask[:, 0].float().cpu()


def to_channels_first(image: Tensor, name: str = "image") -> Tensor:
    """Return a view (B, 3 or 4, H, W) of IMAGE (B, H, W, 1, 3 or 4) with unchanged values; one channel means gray."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(
            f"{name} has shape {tuple(image.shape)}, but must be (batch, height, width, 1, 3 or 4), with no size 0"
        )
    return image.movedim(-1, 1).expand(-1, max(image.shape[-1], 3), -1, -1)


def check_finite(image: Tensor, name: str = "image") -> None:
    """Raise ValueError if any value is NaN or infinite: a VAE or a model would spread it over the whole picture."""
    broken = (~image.isfinite()).flatten(1).sum(1)
    if broken.any():
        first = int(broken.nonzero()[0, 0])
        raise ValueError(
            f"{name} {first} of {len(image)} (counted from 0) has {int(broken[first])} values that "
            "are NaN or infinite. If a VAE decoded it, the VAE overflowed: start ComfyUI with --fp32-vae"
        )


def one_per_mask(image: Tensor, mask: Tensor) -> Tensor:
    """Repeat a single image (1, C, H, W), as a view, for each of its masks; return a batch as is."""
    return image.expand(len(mask_to_tensor(mask)), -1, -1, -1) if len(image) == 1 else image


def fit_mask(mask: Tensor, image: Tensor, name: str = "mask") -> Tensor:
    """Bring a MASK to the size and batch of image (B, C, H, W).

    A different size is scaled, and logged, if it has the same aspect ratio. One mask serves all images. An empty mask
    may have any size.

    Returns:
        (B, 1, H, W), float32, on the image's device.

    Raises:
        ValueError: with both sizes, if aspect ratios or batches do not match.
    """
    given = mask_to_tensor(mask)
    height, width = image.shape[-2:]
    if len(given) not in (1, len(image)):
        raise ValueError(
            f"{name} is a batch of {len(given)}, but there are {len(image)} images: connect one mask for "
            "all of them, or one for each"
        )
    fitted = _at_size(given.to(image.device, torch.float32), height, width, name)
    return fitted.expand(len(image), -1, -1, -1)


def _at_size(mask: Tensor, height: int, width: int, name: str) -> Tensor:
    old = tuple(mask.shape[-2:])
    if old == (height, width):
        return mask
    if not mask.any():
        return mask.new_zeros(len(mask), 1, height, width)
    mismatch = min(abs(old[1] * height / old[0] - width), abs(old[0] * width / old[1] - height))
    if mismatch > max(1.0, height / old[0], width / old[1]):  # more than rounding, by one pixel of the coarser
        raise ValueError(
            f"{name} is {old[1]} x {old[0]}, but the image is {width} x {height}, a different aspect ratio: the mask "
            "would have to be stretched. Resize it, or draw a mask for this image"
        )
    log.info("GradPaint: %s is %d x %d; scaling it to the image's %d x %d", name, old[1], old[0], width, height)
    smaller = resize_mask(mask, (min(old[0], height), min(old[1], width)))
    scaled = F.interpolate(smaller, size=(height, width), mode="bilinear", align_corners=False)
    black_and_white = bool(((mask == 0) | (mask == 1)).all())
    return (scaled >= 0.5).float() if black_and_white else scaled


def size_of(source: Any) -> tuple[int, int]:
    """Return (height, width) of an IMAGE, in pixels, or of a LATENT, in latent cells."""
    if isinstance(source, dict):
        height, width = source["samples"].shape[-2:]
        return height, width
    if isinstance(source, Tensor) and source.ndim == 4:
        return source.shape[1], source.shape[2]
    shape = tuple(source.shape) if isinstance(source, Tensor) else type(source).__name__
    raise ValueError(f"size_from is {shape}, but must be an IMAGE (batch, height, width, channels) or a LATENT")


def masked_latent(latent: dict, mask: Tensor | None = None) -> dict:
    """Return the latent with the noise mask that sampling will use: `mask` if given, otherwise the latent's own.

    The caller's latent does not change. The mask is stored as SetLatentNoiseMask stores it, so the host fits it to the
    latent's size and batch. For a nested latent `mask` belongs to the first component, the video; the others keep
    theirs.

    Raises:
        ValueError: if there is no mask, or it is 0 everywhere.
    """
    samples = latent["samples"]
    own = latent.get("noise_mask")
    mask = own if mask is None else mask
    if mask is None:
        raise ValueError(
            "GradPaint needs a mask of what to repaint: connect one to `mask`, or use a latent with a "
            "noise mask (from Set Latent Noise Mask or VAE Encode (for Inpainting))"
        )
    if mask.is_nested or mask.ndim == 5:  # already in the host's own form
        stored = mask
    else:
        stored = mask_to_tensor(mask)
        if own is not None and own.is_nested:
            stored = type(own)([stored, *own.unbind()[1:]])
    if is_empty(stored):
        raise ValueError(
            f"nothing to repaint: the mask of shape {tuple(mask.shape)} is 0 everywhere, for a latent of "
            f"shape {tuple(samples.shape)}. Paint the hole white (1 = repaint). An image without an alpha "
            "channel loads with an empty mask"
        )
    return {**latent, "noise_mask": stored}
