"""Distances to, and values of, the nearest pixel of a region. Exact, by columns first and rows after."""
from __future__ import annotations

import math

import torch
from torch import Tensor


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


def nearest_values(image: Tensor, known: Tensor) -> Tensor:
    """Every pixel that is not known takes the nearest known one's value.

    image: (C, H, W); known: (H, W), bool, not False everywhere.
    """
    if known.all():
        return image
    rows, columns = hole_box(~known)
    part, there = image[:, rows, columns], known[rows, columns]
    row, along = _nearest_row(there)
    squared = along * along
    column = torch.arange(there.shape[1], device=image.device).expand_as(row)
    best, best_row, best_column = squared.clone(), row.clone(), column.clone()
    for dx in range(1, min(_farthest(there), there.shape[1] - 1) + 1):
        for to, source in ((slice(dx, None), slice(None, -dx)), (slice(None, -dx), slice(dx, None))):
            candidate = squared[:, source] + dx * dx
            closer = candidate < best[:, to]
            for target, new in ((best, candidate), (best_row, row[:, source]), (best_column, column[:, source])):
                target[:, to] = torch.where(closer, new, target[:, to])
    out = image.clone()
    out[:, rows, columns] = part[:, best_row, best_column]
    return out


def hole_box(hole: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the smallest box with all True of hole (H, W), and one pixel around it where there is."""
    spans = []
    for axis in (0, 1):
        where = hole.any(1 - axis).nonzero()
        spans.append(slice(max(int(where[0]) - 1, 0), min(int(where[-1]) + 2, hole.shape[axis])))
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
