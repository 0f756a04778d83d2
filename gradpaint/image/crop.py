"""Chooses which part of an image is sampled and at what size: boxes around holes, scales, multiples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # (height, width) in pixels
Span = tuple[int, int]  # (first, last + 1) of the rows or columns that hold something


class Crop(NamedTuple):
    """Which boxes are cut out of a batch of images, and the size at which they are encoded.

    corners: (top, left) of each image's box. box: size of all boxes. content: the size that boxes are resized to.
    encoded: `content` plus the padding at the right and bottom that makes it a multiple.
    """

    corners: tuple[tuple[int, int], ...]
    box: Size
    content: Size
    encoded: Size


class Area(NamedTuple):
    """How to choose the crop.

    around: crop around the hole; False takes the whole image. factor: size of the crop relative to the hole's, at least
    1. margin: pixels around the hole, at least. square: make the crop square. size: resize the crop to the area of a
    square of this side; 0 keeps its size. multiple: what the encoded width and height must be multiples of.
    """

    around: bool = False
    factor: float = 1.5
    margin: int = 32
    square: bool = False
    size: int = 0
    multiple: int = 16


def find_crop(region: Tensor, area: Area) -> Crop:
    """Choose a box for each image of a batch.

    Boxes stay inside the image. All have the same size, because they are encoded together; an image with an empty
    region gets a box in its middle.

    Args:
        region: (B, 1, H, W); the boxes must contain what is above 0.
        area: how to choose them.
    """
    canvas: Size = (region.shape[-2], region.shape[-1])
    spans = [_spans(mask[0] > 0) if area.around else None for mask in region]
    filled = [pair for pair in spans if pair]
    smallest = _smallest_box(filled, canvas, area) if filled else canvas
    encoded, scale = _resized(smallest, area) if area.size else (_round_up(smallest, area.multiple), 1.0)
    height, width = (min(full, max(side, int(new / scale))) for full, side, new in zip(canvas, smallest, encoded))
    box = height, width
    content = min(encoded[0], max(1, round(height * scale))), min(encoded[1], max(1, round(width * scale)))
    corners = tuple(_corner(pair, box, canvas) for pair in spans)
    return Crop(corners, box, content, encoded)


def _spans(hole: Tensor) -> tuple[Span, Span] | None:
    """Return the spans of rows and columns that hold something, None if nothing does."""
    if not hole.any():
        return None
    rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


def _smallest_box(spans: Sequence[tuple[Span, Span]], canvas: Size, area: Area) -> Size:
    """Return the smallest box that is large enough for all holes, within the image."""

    def side(axis: int) -> int:
        return max(
            max(math.ceil((end - start) * area.factor), end - start + 2 * area.margin)
            for start, end in (pair[axis] for pair in spans)
        )

    height, width = side(0), side(1)
    if area.square:
        height = width = max(height, width)
    return min(height, canvas[0]), min(width, canvas[1])


def _round_up(size: Size, multiple: int) -> Size:
    return math.ceil(size[0] / multiple) * multiple, math.ceil(size[1] / multiple) * multiple


def _resized(box: Size, area: Area) -> tuple[Size, float]:
    """Return the multiples nearest to the requested area, and the scale at which the box fits into them."""
    scale = area.size / math.sqrt(box[0] * box[1])
    height, width = (max(1, round(side * scale / area.multiple)) * area.multiple for side in box)
    return (height, width), min(height / box[0], width / box[1])


def _corner(spans: tuple[Span, Span] | None, box: Size, canvas: Size) -> tuple[int, int]:
    """Return a box's (top, left): centered on the spans (None: on the image), then moved inside."""
    rows, columns = spans or ((0, canvas[0]), (0, canvas[1]))
    return _start(rows, box[0], canvas[0]), _start(columns, box[1], canvas[1])


def _start(span: Span, side: int, full: int) -> int:
    return min(max(int((span[0] + span[1]) / 2 - side / 2), 0), full - side)


def cut(x: Tensor, crop: Crop) -> Tensor:
    """Cut the boxes out of (B, C, H, W): (B, C, box)."""
    height, width = crop.box
    return torch.stack([one[:, top : top + height, left : left + width] for one, (top, left) in zip(x, crop.corners)])


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, H, W) to (height, width) by bicubic interpolation without aliasing; unchanged if it fits."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x.float(), size=tuple(size), mode="bicubic", antialias=True, align_corners=False)


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, 1, H, W) to (height, width): smaller by taking the highest values, larger by repeating values."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    lower = min(mask.shape[-2], size[0]), min(mask.shape[-1], size[1])
    return F.interpolate(F.adaptive_max_pool2d(mask.float(), lower), size=tuple(size), mode="nearest-exact")


def pad_mirrored(x: Tensor, size: Size) -> Tensor:
    """Mirror (B, C, H, W) at the right and bottom up to (height, width), so that no edge is visible there."""
    for dim, new in ((-2, size[0]), (-1, size[1])):
        old = x.shape[dim]
        if new > old:
            place = torch.arange(new, device=x.device) % (2 * old)
            x = x.index_select(dim, torch.minimum(place, 2 * old - 1 - place))
    return x


def pad_repeated(mask: Tensor, size: Size) -> Tensor:
    """Repeat a mask's last row and column up to (height, width), so that a hole at the edge continues beyond it.

    Mirroring would put the known region from the hole's other side there.
    """
    return F.pad(mask, (0, size[1] - mask.shape[-1], 0, size[0] - mask.shape[-2]), mode="replicate")
