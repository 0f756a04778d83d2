"""Finds the nearest pixel of a region and the distance to it, exactly: within columns first, then along rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 2**16  # pixels processed at a time, few enough for the processor's cache


def distance_to(region: Tensor, limit: int) -> Tensor:
    """Return each pixel's Euclidean distance to the nearest True of a region.

    Args:
        region: (B, 1, H, W) bool.
        limit: in pixels; larger distances are returned as inf.

    Returns:
        (B, 1, H, W) float32.
    """
    squared = torch.minimum(*_from_above_and_below(_to_itself(region))).square_().flatten(0, -2)
    nearest, spare = squared.clone(), torch.empty_like(squared[: _rows(squared)])
    for rows in _blocks(squared):
        here, best = squared[rows], nearest[rows]
        budget = limit * limit - float(here.min())  # squared distance that remains for the move along the row
        for dx in range(1, min(math.isqrt(int(budget)), here.shape[1] - 1) + 1 if budget > 0 else 1):
            far = torch.add(here, dx * dx, out=spare[: len(here)])
            torch.minimum(best[:, dx:], far[:, :-dx], out=best[:, dx:])
            torch.minimum(best[:, :-dx], far[:, dx:], out=best[:, :-dx])
    return nearest.masked_fill_(nearest > limit * limit, math.inf).sqrt_().view(region.shape)


def nearest_known(known: Tensor, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Find the unknown pixels within a distance of known ones, and the nearest known pixel of each.

    Args:
        known: (H, W) bool, not False everywhere.
        limit: the distance in pixels; None for no limit.

    Returns:
        The unknown pixels, their nearest known pixels, both as row * W + column, and the distances, (N,) each.
    """
    if known.all():
        return (torch.empty(0, dtype=torch.long, device=known.device),) * 2 + (torch.empty(0, device=known.device),)
    rows, columns = hole_box(~known)
    here, there, distance = _nearest(known[rows, columns], limit)
    width, box_width = known.shape[1], columns.stop - columns.start

    def in_image(pixel: Tensor) -> Tensor:
        return (pixel // box_width + rows.start) * width + pixel % box_width + columns.start

    return in_image(here), in_image(there), distance


def mirrored(known: Tensor, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same as `nearest_known`, but replace the nearest known pixel by the mirror image of the unknown one.

    The nearest known pixel is the mirror. It is kept where the mirror image is unknown or outside the image.
    """
    height, width = known.shape
    here, nearest, distance = nearest_known(known, limit)
    row, column = 2 * (nearest // width) - here // width, 2 * (nearest % width) - here % width
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    there = (row * width + column).where(inside, nearest)
    return here, there.where(known.flatten()[there], nearest), distance


def _nearest(known: Tensor, limit: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `nearest_known`, for an image that is not all known."""
    above, below = _from_above_and_below(_to_itself(known))
    down = torch.where(above <= below, -above, below)  # to the nearest known pixel in the column; inf if there is none
    bound = torch.minimum(*_from_above_and_below(down.abs().T)).T  # along the row, then down: at least the distance
    width = known.shape[1]
    results: list[tuple[Tensor, Tensor, Tensor]] = []
    for block in _blocks(known):
        farthest = int(bound[block].max())
        reach = farthest if limit is None else min(farthest, limit)
        step, squared = _nearest_in_rows(down[block], reach)
        row, column = (~known[block] & (squared <= reach * reach)).nonzero(as_tuple=True)
        there = column + step[row, column]
        row_there = row + down[block][row, there].long()
        results.append(
            (
                (row + block.start) * width + column,
                (row_there + block.start) * width + there,
                squared[row, column].to(bound).sqrt_(),
            )
        )
    here, there, distance = (torch.cat(blocks) for blocks in zip(*results))
    return here, there, distance


def _nearest_in_rows(down: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Return the move along the row to each pixel's nearest known one, and the squared distance, if within reach."""
    bits, beyond = (2 * reach).bit_length(), reach * reach + 1
    kind = torch.int32 if (2 * beyond) << bits < 2**31 else torch.int64
    squared = down.square().clamp_max(beyond).to(kind)
    # Squared distance and move are packed into one number, so that the minimum finds both.
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
    """Return rows and columns of the smallest box around all True of hole (H, W), widened by `around` pixels."""

    def span(axis: int) -> slice:
        filled = hole.any(1 - axis).nonzero()
        return slice(max(int(filled[0]) - around, 0), min(int(filled[-1]) + 1 + around, hole.shape[axis]))

    return span(0), span(1)


def _to_itself(region: Tensor) -> Tensor:
    """Return each pixel's distance to the region, if only the pixel itself counts: 0 or inf."""
    return torch.where(region, 0.0, math.inf)


def _from_above_and_below(distance: Tensor) -> tuple[Tensor, Tensor]:
    """Let pixels inherit distances (..., H, W), plus those between them, from above and from below in their column."""

    def swept(step: int) -> Tensor:
        out = torch.empty_like(distance, memory_format=torch.contiguous_format)
        last = torch.full_like(out[..., 0, :], math.inf)
        for here, least in list(zip(distance.contiguous().unbind(-2), out.unbind(-2)))[::step]:
            torch.add(last, 1, out=least)
            last = torch.minimum(least, here, out=least)
        return out

    return swept(1), swept(-1)


def _rows(pixels: Tensor) -> int:
    return max(1, BLOCK // pixels.shape[1])


def _blocks(pixels: Tensor) -> list[slice]:
    """Split the rows of (H, W) into blocks to process together."""
    return [slice(start, start + _rows(pixels)) for start in range(0, len(pixels), _rows(pixels))]
