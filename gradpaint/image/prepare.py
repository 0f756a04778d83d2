"""Turns an image and a mask into what is encoded and sampled, and records in a `Stitch` how to undo that."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import mask_tools
from .crop import Area, cut, find_crop, pad_mirrored, pad_repeated, resize, resize_mask
from .fill import fill_hole
from .stitch import Stitch


@dataclass(frozen=True)
class Preparation:
    """What to do to images and masks; applied in the order invert, threshold, fill_holes, pads, grow, feather, area.

    content: what to fill the hole with, see `fill_hole`. threshold: where masks become black and white; 0 keeps gray.
    pads: pixels to add and repaint at the (left, top, right, bottom). grow, feather: in pixels. area: see `Area`.
    """

    content: str = "fill"
    invert: bool = False
    threshold: float = 0.0
    fill_holes: bool = False
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    grow: int = 0
    feather: int = 0
    area: Area = Area()


@dataclass(frozen=True)
class Prepared:
    """Image (B, 3, h, w) and mask (B, 1, h, w), ready to be encoded and sampled, and how to undo the preparation."""

    image: Tensor
    mask: Tensor
    stitch: Stitch


def prepare(
    image: Tensor,
    mask: Tensor | None,
    preparation: Preparation,
    cell: int = 8,
    frame_starts: tuple[int, ...] = (),
    context: Tensor | None = None,
) -> Prepared:
    """Prepare images and masks for encoding and sampling.

    Args:
        image: (B, 3 or 4, H, W) in [0, 1]. A fourth channel is not sampled; `stitch.composite` returns it unchanged.
        mask: (B, 1, H, W), 1 = repaint; None to repaint only the pads.
        preparation: what to do to them.
        cell: side of a latent cell in pixels. The mask becomes constant in each cell, see `mask_tools.block_max`.
        frame_starts: for a video, the first frame of each latent frame, and the number of frames. Frames of the same
            latent frame share their mask; missing frames repeat the last one. Empty for separate images.
        context: (B, 1, H, W), above 0 where the crop must reach besides the mask.

    Raises:
        ValueError: nothing to repaint, nothing known, or an unknown content.
    """
    count = len(image)
    if frame_starts:
        image = _lengthened(image, frame_starts[-1])
        mask = None if mask is None else _lengthened(mask, frame_starts[-1])
        context = None if context is None else _lengthened(context, frame_starts[-1])
    canvas = _extended(image, preparation.pads)
    hole = shape_mask(image, mask, preparation)
    mask_tools.check_mask(hole)
    crop = find_crop(_region(hole, context, preparation.pads, bool(frame_starts)), preparation.area)
    boxes, box_mask = cut(canvas[:, :3], crop), cut(hole, crop)
    filled = fill_hole(boxes.float(), box_mask, preparation.content)
    sampled = mask_tools.block_max(pad_repeated(resize_mask(box_mask, crop.content), crop.encoded), cell)
    if frame_starts:
        sampled = mask_tools.frame_max(sampled, frame_starts)
    encoded = pad_mirrored(resize(filled, crop.content).clamp(0, 1), crop.encoded)
    frames = frame_starts[-1] if frame_starts else 0
    return Prepared(encoded, sampled, Stitch(canvas[:count], hole[:count], sampled, crop, frames, cell))


def shape_mask(image: Tensor, mask: Tensor | None, preparation: Preparation) -> Tensor:
    """Apply the preparation to the mask, at the image's own size with its pads: (B, 1, H, W)."""
    hole = torch.zeros_like(image[:, :1], dtype=torch.float32) if mask is None else mask.float()
    if mask is not None and preparation.invert:
        hole = 1 - hole
    hole = mask_tools.snap(hole, preparation.threshold)
    if preparation.fill_holes:
        hole = mask_tools.fill_holes(hole)
    left, top, right, bottom = preparation.pads
    hole = F.pad(hole, (left, right, top, bottom), value=1.0)
    return mask_tools.feather(mask_tools.grow(hole, preparation.grow), preparation.feather)


def _extended(image: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
    """Add pads. They are opaque; their color doesn't matter, because they are repainted."""
    left, top, right, bottom = pads
    extended = F.pad(image, (left, right, top, bottom), mode="replicate") if any(pads) else image
    if any(pads) and image.shape[1] == 4:
        extended[:, 3] = F.pad(image[:, 3], (left, right, top, bottom), value=1.0)
    return extended


def _region(hole: Tensor, context: Tensor | None, pads: tuple[int, int, int, int], one_box: bool) -> Tensor:
    """Return what the crop must contain, (B, 1, H, W); the same for all images with `one_box`, as in a video."""
    region = hole
    if context is not None:
        left, top, right, bottom = pads
        region = torch.maximum(hole, F.pad((context > 0).to(hole), (left, right, top, bottom)))
    return region.amax(0, keepdim=True).expand_as(region) if one_box else region


def _lengthened(frames: Tensor, count: int) -> Tensor:
    """Repeat the last frame up to `count` frames."""
    if len(frames) >= count:
        return frames
    return torch.cat([frames, frames[-1:].expand(count - len(frames), *frames.shape[1:])])
