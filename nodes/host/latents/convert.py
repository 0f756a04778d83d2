"""The host's IMAGE, MASK and LATENT to and from the library's (B, C, H, W). Errors name the shapes.

IMAGE (B, H, W, C) in [0, 1]; MASK (B, H, W) with 1 = repaint; LATENT a dict with "samples" (B, C, H, W) or
(B, C, T, H, W) and optionally "noise_mask", both perhaps nested (video, audio). Library images are (B, C, H, W) in
[-1, 1], masks (B, 1, H, W).
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ....gradpaint.image.crop import resize_mask
from .mask_check import is_empty

log = logging.getLogger(__name__)


def image_to_tensor(image: Tensor) -> Tensor:
    """IMAGE (B, H, W, C) in [0, 1] -> (B, 3, H, W) in [-1, 1]; an alpha channel is dropped."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise ValueError(f"image has shape {tuple(image.shape)}, but must be (batch, height, width, 3 or 4)")
    return rearrange(image[..., :3].float() * 2 - 1, "b h w c -> b c h w")


def tensor_to_image(x: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> IMAGE (B, H, W, 3) in [0, 1], clipped, on the CPU."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"image tensor has shape {tuple(x.shape)}, but must be (batch, 3, height, width)")
    return rearrange((x.float() + 1) / 2, "b c h w -> b h w c").clamp(0, 1).cpu().contiguous()


def mask_to_tensor(mask: Tensor) -> Tensor:
    """MASK (B, H, W) or (H, W), or a stored noise mask (B, 1, H, W) -> (B, 1, H, W), the way the host reads it."""
    if mask.ndim < 2 or mask.ndim > 4 or (mask.ndim == 4 and mask.shape[1] != 1):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but must be (height, width), (batch, height, width) "
            "or (batch, 1, height, width)"
        )
    return mask.reshape(-1, 1, mask.shape[-2], mask.shape[-1])


def tensor_to_mask(mask: Tensor) -> Tensor:
    """(B, 1, H, W) -> MASK (B, H, W)."""
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"mask tensor has shape {tuple(mask.shape)}, but must be (batch, 1, height, width)")
    return mask[:, 0].float().cpu()


def to_channels_first(image: Tensor, name: str = "image") -> Tensor:
    """IMAGE (B, H, W, 1, 3 or 4) -> (B, 3 or 4, H, W), the values as they are; a view of it. One channel is grey."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(
            f"{name} has shape {tuple(image.shape)}, but must be (batch, height, width, 1, 3 or 4), none 0"
        )
    return image.movedim(-1, 1).expand(-1, max(image.shape[-1], 3), -1, -1)


def check_finite(image: Tensor, name: str = "image") -> None:
    """ValueError if any value is NaN or infinite: a VAE and a model would spread it over the whole picture."""
    broken = (~image.isfinite()).flatten(1).sum(1)
    if broken.any():
        where = broken.nonzero()[:, 0].tolist()
        raise ValueError(
            f"{name} {where[0]} of {len(image)} (counted from 0) has {int(broken[where[0]])} values that "
            "are NaN or infinite. If a VAE decoded it, that overflowed: start ComfyUI with --fp32-vae"
        )


def one_per_mask(image: Tensor, mask: Tensor) -> Tensor:
    """(B, C, H, W): a single image once for each of its masks, a batch as it is; a view of it."""
    return image.expand(len(mask_to_tensor(mask)), -1, -1, -1) if len(image) == 1 else image


def fit_mask(mask: Tensor, image: Tensor, name: str = "mask") -> Tensor:
    """MASK at the size and batch of image (B, C, H, W): (B, 1, H, W), float, on its device.

    Another size of the same shape is scaled, and said in the log. One mask serves all images. An empty mask may have
    any size. Raises ValueError, with both sizes, if shapes or batches do not fit.
    """
    given = mask_to_tensor(mask)
    height, width = image.shape[-2:]
    if len(given) not in (1, len(image)):
        raise ValueError(
            f"{name} is a batch of {len(given)}, but there are {len(image)} images: give one mask for "
            "all, or one for each image"
        )
    fitted = _at_size(given.to(image.device, torch.float32), height, width, name)
    return fitted.expand(len(image), -1, -1, -1)


def _at_size(mask: Tensor, height: int, width: int, name: str) -> Tensor:
    old = tuple(mask.shape[-2:])
    if old == (height, width):
        return mask
    if not mask.any():
        return mask.new_zeros(len(mask), 1, height, width)
    off = min(abs(old[1] * height / old[0] - width), abs(old[0] * width / old[1] - height))
    if off > max(1.0, height / old[0], width / old[1]):  # more than rounding, by a pixel of the smaller of the two
        raise ValueError(
            f"{name} is {old[1]} x {old[0]}, but the image is {width} x {height}, another shape: it would "
            "have to be stretched. Resize the mask, or make it for this image"
        )
    log.info("%s is %d x %d: scaled to the image's %d x %d", name, old[1], old[0], width, height)
    smaller = resize_mask(mask, (min(old[0], height), min(old[1], width)))
    scaled = F.interpolate(smaller, size=(height, width), mode="bilinear", align_corners=False)
    black_and_white = bool(((mask == 0) | (mask == 1)).all())
    return (scaled >= 0.5).float() if black_and_white else scaled


def size_of(source) -> tuple[int, int]:
    """(height, width) of an IMAGE, in pixels, or of a LATENT, in its own cells."""
    if isinstance(source, dict):
        return tuple(source["samples"].shape[-2:])
    if isinstance(source, Tensor) and source.ndim == 4:
        return tuple(source.shape[1:3])
    shape = tuple(source.shape) if isinstance(source, Tensor) else type(source).__name__
    raise ValueError(f"size_from is {shape}, but must be an IMAGE (batch, height, width, channels) or a LATENT")


def masked_latent(latent: dict, mask: Tensor | None = None) -> dict:
    """The latent with the noise mask that sampling will use: `mask` if given, else the latent's own.

    The caller's latent is left as it is. Stored as SetLatentNoiseMask stores it, so the host fits it to the latent's
    size and batch. Of a nested latent `mask` is the first part's, the video's; the others keep their own. Raises
    ValueError if there is no mask at all or if no part of it is to be repainted.
    """
    samples = latent["samples"]
    own = latent.get("noise_mask")
    mask = own if mask is None else mask
    if mask is None:
        raise ValueError(
            "GradPaint needs a mask of what to repaint: connect one to `mask`, or use a latent with a "
            "noise mask (Set Latent Noise Mask, VAE Encode (for Inpainting))"
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
            f"shape {tuple(samples.shape)}. Paint the hole white (1 = repaint); an image without alpha "
            "channel gives an empty mask"
        )
    return {**latent, "noise_mask": stored}
