"""From a picture and a mask as they come to what is encoded and sampled, and back with a `Stitch`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import mask_tools
from .crop import Area, cut, pad_mirrored, pad_repeated, plan_crop, resize, resize_mask
from .fill import fill_hole
from .stitch import Stitch


@dataclass(frozen=True)
class Preparation:
    """What is done to pictures and masks, in this order: invert, threshold, fill_holes, pads, grow, feather, area,
    content.

    content: see `fill_hole`; threshold: masks become black and white there, 0 keeps grey; grow, feather: in pixels;
    pads: (left, top, right, bottom), pixels to add and to repaint; area: see `Area`.
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
    """image (B, 3, h, w) and mask (B, 1, h, w), as they are to be encoded and sampled, and the way back."""

    image: Tensor
    mask: Tensor
    stitch: Stitch


def prepare(
    image: Tensor,
    mask: Tensor | None,
    how: Preparation,
    cell: int = 8,
    frame_starts: tuple[int, ...] = (),
    context: Tensor | None = None,
) -> Prepared:
    """
    Args:
        image: (B, 3 or 4, H, W) in [0, 1]; a fourth channel is kept aside and comes back in the end.
        mask: (B, 1, H, W), 1 = repaint; None if only the pads are to be painted.
        cell: side of a latent cell in pixels. The mask is made constant in cells, see `mask_tools.block_max`.
        frame_starts: of a video, the first frame of each latent frame and the end; the frames of one count as one
            cell, missing ones repeat the last. Empty: the pictures are separate.
        context: (B, 1, H, W), above 0 where a crop must reach, besides the mask.
    """
    count = len(image)
    if frame_starts:
        image, mask, context = (_lengthen(x, frame_starts[-1]) for x in (image, mask, context))
    canvas = _extend(image, how.pads)
    hole = shape_mask(image, mask, how)
    mask_tools.check_something_to_do(hole)
    plan = plan_crop(_interest(hole, context, how.pads, bool(frame_starts)), how.area)
    known_part, known_mask = cut(canvas[:, :3], plan), cut(hole, plan)
    filled = fill_hole(known_part.float(), known_mask, how.content)
    small_mask = pad_repeated(resize_mask(known_mask, plan.content), plan.encoded)
    sampled = mask_tools.block_max(small_mask, cell)
    if frame_starts:
        sampled = mask_tools.frame_max(sampled, frame_starts)
    encoded = pad_mirrored(resize(filled, plan.content).clamp(0, 1), plan.encoded)
    frames = frame_starts[-1] if frame_starts else 0
    return Prepared(encoded, sampled, Stitch(canvas[:count], hole[:count], sampled, plan, frames, cell))


def shape_mask(image: Tensor, mask: Tensor | None, how: Preparation) -> Tensor:
    """(B, 1, H, W) on the extended canvas, all that is done to the mask at the picture's own size."""
    hole = torch.zeros_like(image[:, :1], dtype=torch.float32) if mask is None else mask.float()
    if mask is not None and how.invert:
        hole = 1 - hole
    hole = mask_tools.snap(hole, how.threshold)
    if how.fill_holes:
        hole = mask_tools.fill_holes(hole)
    left, top, right, bottom = how.pads
    hole = F.pad(hole, (left, right, top, bottom), value=1.0)
    return mask_tools.feather(mask_tools.grow(hole, how.grow), how.feather)


def _extend(image: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
    """The pads are opaque; what colour they have does not matter, all of it is repainted."""
    left, top, right, bottom = pads
    extended = F.pad(image, (left, right, top, bottom), mode="replicate") if any(pads) else image
    if any(pads) and image.shape[1] == 4:
        extended[:, 3] = F.pad(image[:, 3], (left, right, top, bottom), value=1.0)
    return extended


def _interest(hole: Tensor, context: Tensor | None, pads, one_box: bool) -> Tensor:
    interest = hole
    if context is not None:
        left, top, right, bottom = pads
        interest = torch.maximum(hole, F.pad((context > 0).to(hole), (left, right, top, bottom)))
    if one_box:  # frames of a video are cut out at one place
        interest = interest.amax(0, keepdim=True).expand_as(interest)
    return interest


def _lengthen(frames: Tensor | None, count: int) -> Tensor | None:
    if frames is None or len(frames) >= count:
        return frames
    return torch.cat([frames, frames[-1:].expand(count - len(frames), *frames.shape[1:])])
