"""Which part of a picture is sampled, and at which size: boxes around the holes, scales and multiples."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Plan(NamedTuple):
    """How a canvas of pictures becomes what is encoded. All sizes are (height, width) in pixels.

    corners: of each picture's box, (top, left); box: the size of all of them; content: the size that the boxes are
    resized to; encoded: the content and what was added at the right and bottom to reach the multiple.
    """

    corners: tuple[tuple[int, int], ...]
    box: tuple[int, int]
    content: tuple[int, int]
    encoded: tuple[int, int]


class Area(NamedTuple):
    """What of the canvas is wanted.

    around: crop around the holes, else all of it is taken; factor: width and height of the crop over the hole's, at
    least 1; margin: pixels around the hole at least; square: as wide as high; size: the crop is resized to the area
    of a square of that side, 0 as it is; multiple: of width and height.
    """

    around: bool = False
    factor: float = 1.5
    margin: int = 32
    square: bool = False
    size: int = 0
    multiple: int = 16


def plan_crop(interest: Tensor, area: Area) -> Plan:
    """The plan for `interest` (B, 1, H, W): what is above 0 must be inside the boxes.

    Boxes stay inside the canvas. All pictures of a batch get the same size, as they are encoded together; a picture
    without anything of interest gets the box in its middle.
    """
    canvas = tuple(interest.shape[-2:])
    spans = [_spans(one[0] > 0) for one in interest] if area.around else [None] * len(interest)
    wanted = _wanted(spans, canvas, area) if any(spans) else canvas
    encoded, scale = _resized(wanted, area) if area.size else (_up(wanted, area.multiple), 1.0)
    box = tuple(min(full, max(side, int(new / scale))) for full, side, new in zip(canvas, wanted, encoded))
    content = tuple(min(new, max(1, round(side * scale))) for side, new in zip(box, encoded))
    corners = tuple(
        tuple(_start(span, side, full) for span, side, full in zip(both or (None, None), box, canvas)) for both in spans
    )
    return Plan(corners, box, content, encoded)


def _spans(hole: Tensor) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(first, last + 1) of the rows and of the columns that hold something; None if nothing does."""
    if not hole.any():
        return None
    return tuple((int(where[0]), int(where[-1]) + 1) for where in (hole.any(1).nonzero(), hole.any(0).nonzero()))


def _wanted(spans, canvas: tuple[int, int], area: Area) -> tuple[int, int]:
    """The largest box that any of the pictures asks for, within the canvas."""

    def side(axis: int) -> int:
        return max(
            max(math.ceil((end - start) * area.factor), end - start + 2 * area.margin)
            for start, end in (both[axis] for both in spans if both)
        )

    sides = side(0), side(1)
    if area.square:
        sides = (max(sides),) * 2
    return tuple(min(side, full) for side, full in zip(sides, canvas))


def _up(sides: tuple[int, int], multiple: int) -> tuple[int, int]:
    return tuple(math.ceil(side / multiple) * multiple for side in sides)


def _resized(wanted: tuple[int, int], area: Area) -> tuple[tuple[int, int], float]:
    """The multiples nearest to the area asked for, and the scale at which what is wanted fits in."""
    scale = area.size / math.sqrt(wanted[0] * wanted[1])
    encoded = tuple(max(1, round(side * scale / area.multiple)) * area.multiple for side in wanted)
    return encoded, min(new / side for new, side in zip(encoded, wanted))


def _start(span: tuple[int, int] | None, side: int, full: int) -> int:
    """Where a box of that side begins: centred on the span, moved inside."""
    middle = (span[0] + span[1]) / 2 if span else full / 2
    return min(max(int(middle - side / 2), 0), full - side)


def cut(x: Tensor, plan: Plan) -> Tensor:
    """(B, C, H, W) -> the boxes, (B, C, box)."""
    height, width = plan.box
    return torch.stack([one[:, top : top + height, left : left + width] for one, (top, left) in zip(x, plan.corners)])


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) to that (height, width), bicubic, without aliasing; itself if it has that size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x.float(), size=tuple(size), mode="bicubic", antialias=True, align_corners=False)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) to that size: made smaller, a pixel takes the highest value in it; made larger, values repeat."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    lower = tuple(min(old, new) for old, new in zip(mask.shape[-2:], size))
    return F.interpolate(F.adaptive_max_pool2d(mask.float(), lower), size=tuple(size), mode="nearest-exact")


def pad_mirrored(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Mirrored at the right and at the bottom until that (height, width): no border where the picture ends."""
    for dim, new in ((-2, size[0]), (-1, size[1])):
        old = x.shape[dim]
        if new > old:
            place = torch.arange(new, device=x.device) % (2 * old)
            x = x.index_select(dim, torch.minimum(place, 2 * old - 1 - place))
    return x


def pad_repeated(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The last row and column repeated until that (height, width): a hole that reaches the border goes on beyond it.

    Mirrored, what is known on the hole's other side would come after the border and hold the hole from there.
    """
    return F.pad(mask, (0, size[1] - mask.shape[-1], 0, size[0] - mask.shape[-2]), mode="replicate")
