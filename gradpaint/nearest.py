"""The nearest pixel of a region: where it is and how far. Exact, by columns first and rows after."""
from __future__ import annotations

import math

import torch
from torch import Tensor

PLACES = 2**30  # more pixels than any picture has
FAR = 2**32  # squared pixels


def distance_to(region: Tensor, limit: int) -> Tensor:
    """Euclidean distance in pixels to the nearest True of region (B, 1, H, W), exact up to limit, inf beyond it."""
    down = _distance_along_columns(region)
    squared = down * down
    nearest = squared.clone()
    for dx in range(1, min(limit, region.shape[-1] - 1) + 1):
        for to, source in ((slice(dx, None), slice(None, -dx)), (slice(None, -dx), slice(dx, None))):
            part = nearest[..., to]
            torch.minimum(part, squared[..., source] + dx * dx, out=part)
    return nearest.sqrt().masked_fill(nearest > limit * limit, math.inf)


def _distance_along_columns(region: Tensor) -> Tensor:
    rows = torch.arange(region.shape[-2], device=region.device, dtype=torch.float32)[:, None]
    above = rows - torch.where(region, rows, -math.inf).cummax(-2).values
    below = torch.where(region, -rows, -math.inf).flip(-2).cummax(-2).values.flip(-2)
    return torch.minimum(above, -below - rows)


def nearest_known(known: Tensor, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and distance of the nearest known pixel of each pixel; a known one's is itself.

    known: (H, W), bool, not False everywhere. limit: pixels farther than this from a known one may get a wrong one.
    """
    row, column = (grid.clone() for grid in _grid(known))
    distance = torch.zeros(known.shape, device=known.device)
    if not known.all():
        box = hole_box(~known)
        part = known[box]
        reach = _farthest(part) if limit is None else min(limit, _farthest(part))
        near_row, near_column, distance[box] = _nearest(part, reach)
        row[box], column[box] = near_row + box[0].start, near_column + box[1].start
    return row, column, distance


def mirrored(known: Tensor, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column of each pixel's mirror image at the nearest known pixel, and the distance of the latter.

    Where the mirror image is not known either, the nearest known pixel itself. known, limit: see `nearest_known`.
    """
    height, width = known.shape
    (row, column), (near_row, near_column, distance) = _grid(known), nearest_known(known, limit)
    there_row, there_column = 2 * near_row - row, 2 * near_column - column
    inside = (there_row >= 0) & (there_row < height) & (there_column >= 0) & (there_column < width)
    inside &= known[there_row.clamp(0, height - 1), there_column.clamp(0, width - 1)]
    return torch.where(inside, there_row, near_row), torch.where(inside, there_column, near_column), distance


def _grid(like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.meshgrid(*(torch.arange(side, device=like.device) for side in like.shape), indexing="ij")


def _nearest(known: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    row, along = _nearest_row(known)
    width = known.shape[1]
    # Squared distance and place in one number: the least of them is the nearest, and says where it is.
    place = row * width + torch.arange(width, device=known.device)
    squared = torch.where(along < math.inf, along * along, float(FAR)).long()
    key = squared * PLACES + place
    best = key.clone()
    for dx in range(1, min(reach, width - 1) + 1):
        for to, source in ((slice(dx, None), slice(None, -dx)), (slice(None, -dx), slice(dx, None))):
            part = best[:, to]
            torch.minimum(part, key[:, source] + dx * dx * PLACES, out=part)
    place = best % PLACES
    return place // width, place % width, (best // PLACES).float().sqrt()


def hole_box(hole: Tensor, around: int = 1) -> tuple[slice, slice]:
    """Rows and columns of the smallest box with all True of hole (H, W), and as many pixels around it as there are."""
    spans = []
    for axis in (0, 1):
        where = hole.any(1 - axis).nonzero()
        spans.append(slice(max(int(where[0]) - around, 0), min(int(where[-1]) + 1 + around, hole.shape[axis])))
    return tuple(spans)


def _nearest_row(known: Tensor) -> tuple[Tensor, Tensor]:
    """In each pixel's column: the nearest known row, and how far it is (inf if there is none)."""
    rows = torch.arange(known.shape[0], device=known.device, dtype=torch.float32)[:, None].expand(known.shape)
    above = torch.where(known, rows, -math.inf).cummax(0).values
    below = -torch.where(known, -rows, -math.inf).flip(0).cummax(0).values.flip(0)
    nearest = torch.where(rows - above <= below - rows, above, below)
    along = (nearest - rows).abs()
    return nearest.where(along < math.inf, 0.0).long(), along


def _farthest(known: Tensor) -> int:
    """No pixel is farther than this from a known one."""
    along = torch.minimum(_nearest_row(known)[1], _nearest_row(known.T)[1].T).max()
    return math.ceil(math.hypot(*known.shape) if along == math.inf else float(along))
