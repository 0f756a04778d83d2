"""Encoding with the host's VAE: its cell size, multiples and frames, and the shape of the noise mask."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....gradpaint.image.mask_tools import block_max
from ....gradpaint.image.prepare import Prepared

if TYPE_CHECKING:
    from comfy.sd import VAE

log = logging.getLogger(__name__)

PIXEL_MULTIPLE = 64  # guided-diffusion networks halve the size up to six times; Chroma Radiance's patches are 16 wide


def cell_size(vae: VAE | None) -> int:
    """Return the side of a latent cell in pixels.

    Raises:
        ValueError: if there is no VAE, or it is not for images or videos.
    """
    if vae is None:
        raise ValueError(
            "vae is empty: the checkpoint contains none. Use Load VAE (with pixel_space for models that work on pixels)"
        )
    if getattr(vae, "latent_dim", 2) not in (2, 3) or getattr(vae, "extra_1d_channel", None) is not None:
        raise ValueError("vae is for audio, but must be for images or videos: connect the model's image VAE")
    return int(vae.spacial_compression_encode())


def size_multiple(vae: VAE | None, asked: int = 0) -> int:
    """Return the number that width and height must be multiples of, in pixels.

    Args:
        vae: the result is a multiple of its cells.
        asked: the result is a multiple of it too. 0 stands for what suits every model with this VAE: patches of 2 x 2
            latent cells, or single cells of 32 pixels or more, whose models have no larger patches.
    """
    cell = cell_size(vae)
    if asked:
        return math.lcm(asked, cell)
    own = int(getattr(vae, "image_multiple", 0))  # the VAE from Load Latent Diffusion Model knows its model
    if own:
        return own
    if cell == 1:
        return PIXEL_MULTIPLE
    return cell if cell >= 32 else 2 * cell


def frame_starts(vae: VAE, count: int) -> tuple[int, ...]:
    """Return the index of the first frame in each latent frame, then the end; () for a VAE of single images.

    For a Wan VAE and 9 frames it is (0, 1, 5, 9). If `count` frames do not fill the last latent frame, the end is
    larger than `count`.
    """
    ratio = vae.upscale_ratio
    if getattr(vae, "latent_dim", 2) != 3 or getattr(vae, "not_video", False) or not isinstance(ratio, tuple):
        return ()
    starts = [0]
    while starts[-1] < count:
        end = int(ratio[0](len(starts)))
        if end <= starts[-1]:
            raise ValueError(
                f"vae doesn't say how many frames {len(starts)} latent frames hold: connect the model's own VAE, or "
                "switch video off"
            )
        starts.append(end)
    return tuple(starts)


def encode(vae: VAE, image: Tensor, video: bool) -> Tensor:
    """Encode (B, 3, H, W) in [0, 1]; the host falls back to tiles by itself.

    Returns:
        (B, C, h, w) or (B, C, 1, h, w); for a video, whose frames are the batch, (1, C, T, h, w).
    """
    pixels = image.movedim(1, -1).contiguous()
    if getattr(vae, "latent_dim", 2) == 3 and not video:  # the VAE would take the batch for frames
        return torch.cat([vae.encode(single[None]) for single in pixels])
    return vae.encode(pixels)


def encoded(vae: VAE, ready: Prepared, starts: tuple[int, ...]) -> tuple[dict, Prepared]:
    """Encode a prepared image.

    Args:
        vae: some have larger cells than they report (TAEF2); the mask is fitted to the actual ones.
        ready: the image with its mask.
        starts: of a video, see `frame_starts`.

    Returns:
        The LATENT with its noise mask, and `ready` with the mask as it is sampled.
    """
    if len(starts) > 2:
        log.info(
            "GradPaint: encoding %d images as the frames of one video, because this VAE is for videos; for separate "
            "images switch video off",
            len(ready.stitch.image),
        )
    samples = encode(vae, ready.image, bool(starts))
    height, width = (pixels // cells for pixels, cells in zip(ready.image.shape[-2:], samples.shape[-2:]))
    if (height, width) != (cell_size(vae),) * 2:
        mask = block_max(ready.mask, height, width)
        ready = Prepared(ready.image, mask, replace(ready.stitch, sampled=mask, cell=max(height, width)))
    return {"samples": samples, "noise_mask": noise_mask(ready.mask, samples, starts)}, ready


def noise_mask(mask: Tensor, samples: Tensor, starts: tuple[int, ...]) -> Tensor:
    """Give the mask (B, 1, H, W) as many dimensions as the samples have.

    The host would read a four-dimensional mask of a five-dimensional latent as the frames of one video.
    """
    if starts:
        return mask[list(starts[:-1])].movedim(0, 1)[None].contiguous()
    return mask[:, :, None] if samples.ndim == 5 else mask
