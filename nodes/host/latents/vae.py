"""What encoding needs to know of the host's VAE: cells, multiples, frames, and the form of the noise mask."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import torch
from torch import Tensor

from ....gradpaint.image.mask_tools import block_max
from ....gradpaint.image.prepare import Prepared

log = logging.getLogger(__name__)

PIXEL_MULTIPLE = 64  # guided-diffusion networks halve the size up to six times; Chroma Radiance has patches of 16


def cell_size(vae) -> int:
    """Side of a latent cell in pixels. Raises ValueError for a VAE that is not one of pictures."""
    if vae is None:
        raise ValueError("vae is empty: the checkpoint holds none; use Load VAE (pixel_space for models of pixels)")
    if getattr(vae, "latent_dim", 2) not in (2, 3) or getattr(vae, "extra_1d_channel", None) is not None:
        raise ValueError("vae is not one of pictures or videos, but of sound: connect the model's picture VAE")
    return int(vae.spacial_compression_encode())


def size_multiple(vae, asked: int = 0) -> int:
    """What width and height must be multiples of: of what was asked for, in whole latent cells.

    0 asks for what suits every model with this VAE: whole patches of 2 x 2 latent cells. VAEs with cells of 32 pixels
    belong to models that take single cells.
    """
    cell = cell_size(vae)
    if asked:
        return math.lcm(asked, cell)
    if cell == 1:
        return PIXEL_MULTIPLE
    return cell if cell >= 32 else 2 * cell


def frame_starts(vae, count: int) -> tuple[int, ...]:
    """The first of the frames that each latent frame holds, and the end; () if the VAE takes single pictures.

    A Wan VAE with 9 frames: (0, 1, 5, 9). If `count` fills no whole latent frames, the end is beyond it.
    """
    ratio = vae.upscale_ratio
    if getattr(vae, "latent_dim", 2) != 3 or getattr(vae, "not_video", False) or not isinstance(ratio, tuple):
        return ()
    starts = [0]
    while starts[-1] < count:
        end = int(ratio[0](len(starts)))
        if end <= starts[-1]:
            raise ValueError(f"vae does not say how many frames {len(starts)} latent frames hold")
        starts.append(end)
    return tuple(starts)


def encode(vae, image: Tensor, video: bool) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> latent samples; of a video (1, C, T, h, w). The host falls back to tiles by itself."""
    pixels = image.movedim(1, -1).contiguous()
    if getattr(vae, "latent_dim", 2) == 3 and not video:  # it would take the batch for frames
        return torch.cat([vae.encode(one[None]) for one in pixels])
    return vae.encode(pixels)


def encoded(vae, ready: Prepared, starts: tuple[int, ...]) -> tuple[dict, Prepared]:
    """The LATENT with its noise mask, and `ready` with the mask that it really is.

    starts: the video's, see `frame_starts`. Some VAEs have larger cells than they say (TAEF2): what comes out counts.
    """
    if len(starts) > 2:
        log.info(
            "%d images are encoded as the frames of one video, as this VAE takes videos; for separate pictures "
            "switch video off",
            len(ready.stitch.image),
        )
    samples = encode(vae, ready.image, bool(starts))
    height, width = (big // small for big, small in zip(ready.image.shape[-2:], samples.shape[-2:]))
    if (height, width) != (cell_size(vae),) * 2:
        mask = block_max(ready.mask, height, width)
        ready = Prepared(ready.image, mask, replace(ready.stitch, sampled=mask, cell=max(height, width)))
    return {"samples": samples, "noise_mask": noise_mask(ready.mask, samples, starts)}, ready


def noise_mask(mask: Tensor, samples: Tensor, starts: tuple[int, ...]) -> Tensor:
    """The mask (B, 1, H, W) as the host must get it: with as many dimensions as the samples.

    A four-dimensional mask of a five-dimensional latent would be read as the frames of one video.
    """
    if starts:
        return mask[list(starts[:-1])].movedim(0, 1)[None].contiguous()
    return mask[:, :, None] if samples.ndim == 5 else mask
