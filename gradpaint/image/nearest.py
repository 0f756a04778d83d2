"""The nearest pixel of a region: where it is and how far. Exact, by columns first and rows after."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 2**16  # pixels that are worked on at a time: few enough to stay in the processor's cache


def distance_to(region: Tensor, limit: int) -> Tensor:
    """Euclidean distance in pixels to the nearest True of region (B, 1, H, W), exact up to limit, inf beyond it."""
    squared = torch.minimum(*_from_above_and_below(_to_itself(region))).square_().flatten(0, -2)
    nearest, spare = squared.clone(), torch.empty_like(squared[: _rows(squared)])
    for rows in _blocks(squared):
        here, best = squared[rows], nearest[rows]
        left = limit * limit - float(here.min())  # of the limit, for the way along the row
        for dx in range(1, min(math.isqrt(int(left)), here.shape[1] - 1) + 1 if left > 0 else 1):
            far = torch.add(here, dx * dx, out=spare[: len(here)])
            torch.minimum(best[:, dx:], far[:, :-dx], out=best[:, dx:])
            torch.minimum(best[:, :-dx], far[:, dx:], out=best[:, :-dx])
    return nearest.masked_fill_(nearest > limit * limit, math.inf).sqrt_().view(region.shape)


def nearest_known(known: Tensor, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The unknown pixels no farther than limit from a known one, the nearest known one of each, and the distance.

    known: (H, W), bool, not False everywhere. Returns (N,) each; pixels are row * W + column.
    """
    if known.all():
        return (torch.empty(0, dtype=torch.long, device=known.device),) * 2 + (torch.empty(0, device=known.device),)
    rows, columns = hole_box(~known)
    here, there, distance = _nearest(known[rows, columns], limit)
    wide, narrow = known.shape[1], columns.stop - columns.start

    def outside(place: Tensor) -> Tensor:
        return (place // narrow + rows.start) * wide + place % narrow + columns.start

    return outside(here), outside(there), distance


def mirrored(known: Tensor, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `nearest_known`, but instead of that the mirror image of each pixel at it, where that is known."""
    height, width = known.shape
    here, near, distance = nearest_known(known, limit)
    row, column = 2 * (near // width) - here // width, 2 * (near % width) - here % width
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    there = (row * width + column).where(inside, near)
    return here, there.where(known.flatten()[there], near), distance


def _nearest(known: Tensor, limit: int | None) -> tuple[Tensor, Tensor, Tensor]:
    above, below = _from_above_and_below(_to_itself(known))
    down = torch.where(above <= below, -above, below)  # to the nearest in the column; inf if there is none
    bound = torch.minimum(*_from_above_and_below(down.abs().T)).T  # along the row, and then down: never the shorter way
    width, found = known.shape[1], []
    for block in _blocks(known):
        farthest = int(bound[block].max())
        reach = farthest if limit is None else min(farthest, limit)
        step, squared = _nearest_in_rows(down[block], reach)
        row, column = (~known[block] & (squared <= reach * reach)).nonzero(as_tuple=True)
        there = column + step[row, column]
        row_there = row + down[block][row, there].long()
        found.append(
            (
                (row + block.start) * width + column,
                (row_there + block.start) * width + there,
                squared[row, column].to(bound).sqrt_(),
            )
        )
    return tuple(torch.cat(parts) for parts in zip(*found))


def _nearest_in_rows(down: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """How far along its row each pixel's nearest known one is, and its squared distance, if within reach."""
    bits, beyond = (2 * reach).bit_length(), reach * reach + 1
    kind = torch.int32 if (2 * beyond) << bits < 2**31 else torch.int64
    squared = down.square().clamp_max(beyond).to(kind)
    # Squared distance and step in one number: the least of them is the nearest, and says where it is.
    key = (squared << bits) + reach
    best, spare = key.clone(), torch.empty_like(key)
    if int(squared.min()) < beyond:
        for dx in range(1, min(reach, key.shape[1] - 1) + 1):
            far = torch.add(key, (dx * dx << bits) - dx, out=spare)
            torch.minimum(best[:, dx:], far[:, :-dx], out=best[:, dx:])
            far += 2 * dx
            torch.minimum(best[:, :-dx], far[:, dx:], out=best[:, :-dx])
    return (best & (1 << bits) - 1) - reach, best >> bits


def hole_box(hole: Tensor, around: int = 1) -> tuple[slice, slice]:
    """Rows and columns of the smallest box with all True of hole (H, W), and as many pixels around it as there are."""
    spans = []
    for axis in (0, 1):
        where = hole.any(1 - axis).nonzero()
        spans.append(slice(max(int(where[0]) - around, 0), min(int(where[-1]) + 1 + around, hole.shape[axis])))
    return tuple(spans)


def _to_itself(region: Tensor) -> Tensor:
    return torch.where(region, 0.0, math.inf)


def _from_above_and_below(distance: Tensor) -> tuple[Tensor, Tensor]:
    """The least distance (..., H, W) of the pixels above and below in the column, and of itself, with the way there."""
    sides = []
    for step in (1, -1):
        out = torch.empty_like(distance, memory_format=torch.contiguous_format)
        last = torch.full_like(out[..., 0, :], math.inf)
        for here, least in list(zip(distance.contiguous().unbind(-2), out.unbind(-2)))[::step]:
            torch.add(last, 1, out=least)
            last = torch.minimum(least, here, out=least)
        sides.append(out)
    return tuple(sides)


def _rows(pixels: Tensor) -> int:
    return max(1, BLOCK // pixels.shape[1])


def _blocks(pixels: Tensor) -> list[slice]:
    """Rows of (H, W) that are worked on together."""
    return [slice(start, start + _rows(pixels)) for start in range(0, len(pixels), _rows(pixels))]
