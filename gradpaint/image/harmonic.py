"""Smooth continuation into a hole: Laplace's equation, by conjugate gradients with a multigrid preconditioner."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .nearest import BLOCK, hole_box

DAMPING = 0.7  # of the Jacobi sweeps
SWEEPS = 2  # before and after each coarser level: the same number, so that the preconditioner is symmetric
COARSEST = 6  # levels end at this side
LARGE = 512 * 512  # pixels; larger pictures are solved at half their size and enlarged
RELAXING = 8  # sweeps after that
SMALL = 64  # no better first guess is made from a smaller picture than this


def harmonic_fill(values: Tensor, hole: Tensor, tolerance: float = 1e-3, iterations: int = 40) -> Tensor:
    """The values, in the hole replaced by the mean of their four neighbours, everywhere at once.

    Linear ramps continue as they are; nothing exceeds the known values by more than the tolerance. At the image's own
    border there is no gradient across it. Very large holes are solved at half their size: along their border the
    finest detail is then not continued.

    Args:
        values: (B, C, H, W), any range.
        hole: (B, 1, H, W) or (1, 1, H, W), bool, what to fill. An image that is all hole becomes its channels' mean.
        tolerance: the error at which to stop, about, relative to the spread of the known values.
        iterations: at most.
    """
    holes = hole.expand(len(values), -1, -1, -1)
    return torch.stack([_fill_one(image, mask[0], tolerance, iterations) for image, mask in zip(values, holes)])


def _fill_one(image: Tensor, hole: Tensor, tolerance: float, iterations: int) -> Tensor:
    """(C, H, W), (H, W) bool -> (C, H, W). Works on the hole's bounding box and one known pixel around it."""
    if not hole.any():
        return image
    if hole.all():
        return image.mean((1, 2), keepdim=True).expand_as(image).clone()
    rows, columns = hole_box(hole)
    part, inside = image[:, rows, columns].float(), hole[rows, columns]
    filled = image.clone()
    filled[:, rows, columns] = torch.where(inside, _solve(part, inside, tolerance, iterations), part).to(image.dtype)
    return filled


class _Level(NamedTuple):
    """A grid of springs: right (H, W-1) and down (H-1, W) between the hole's cells, diagonal (H, W) their sum."""

    right: Tensor
    down: Tensor
    diagonal: Tensor

    def apply(self, u: Tensor) -> Tensor:
        """The matrix times u (C, H, W); u is 0 outside the hole."""
        out = self.diagonal * u
        out[:, :, :-1].addcmul_(self.right, u[:, :, 1:], value=-1)
        out[:, :, 1:].addcmul_(self.right, u[:, :, :-1], value=-1)
        out[:, :-1].addcmul_(self.down, u[:, 1:], value=-1)
        out[:, 1:].addcmul_(self.down, u[:, :-1], value=-1)
        return out


def _solve(image: Tensor, hole: Tensor, tolerance: float, iterations: int) -> Tensor:
    known = (~hole).float()
    u = _guess(image * known, known, tolerance, iterations) * hole
    pulls = _pulls(image * known) * hole
    if hole.numel() > LARGE:
        return _relaxed(hole, u, pulls)
    spread = (image * known).flatten(1).amax(1) - (image + 3e38 * hole).flatten(1).amin(1)
    return _conjugate_gradients(_levels(hole), u, pulls, tolerance * spread.clamp_min(1e-12), iterations)


def _relaxed(hole: Tensor, u: Tensor, pulls: Tensor) -> Tensor:
    """A few Jacobi sweeps, which join an enlarged solution to its border. u is 0 outside the hole."""
    height, width = hole.shape
    weight = DAMPING / _pulls(torch.ones(1, height, width, device=u.device))[0].clamp_min(1) * hole
    out, rows = torch.empty_like(u), max(4 * RELAXING, BLOCK // width)
    for start in range(0, height, rows):  # strips fit into the processor's cache; each sweep spoils a row at their ends
        low, high = max(start - RELAXING, 0), min(start + rows + RELAXING, height)
        for channel, forces, result in zip(u, pulls, out):
            strip = _swept(weight[low:high], channel[low:high], forces[low:high])
            result[start : start + rows] = strip[start - low : start - low + rows]
    return out


def _swept(weight: Tensor, u: Tensor, pulls: Tensor) -> Tensor:
    """u (H, W) after the sweeps; weight: the damping over the number of neighbours, 0 outside the hole."""
    pulls, old, new = weight * pulls, u.clone(), torch.empty_like(u)
    for _ in range(RELAXING):
        torch.add(pulls, old, alpha=1 - DAMPING, out=new)
        new[:, :-1].addcmul_(weight[:, :-1], old[:, 1:])
        new[:, 1:].addcmul_(weight[:, 1:], old[:, :-1])
        new[:-1].addcmul_(weight[:-1], old[1:])
        new[1:].addcmul_(weight[1:], old[:-1])
        old, new = new, old
    return old


def _conjugate_gradients(levels: list[_Level], u: Tensor, pulls: Tensor, goal: Tensor, iterations: int) -> Tensor:
    """goal: (C,), the error at which to stop."""
    residual = pulls - levels[0].apply(u)
    direction, old = torch.zeros_like(u), None
    for _ in range(iterations):
        better = _cycle(levels, residual)
        if (better.abs().flatten(1).amax(1) <= goal).all():  # about the error that is left
            return u + better
        new = (residual * better).sum((1, 2), keepdim=True)
        direction = better if old is None else better + new / old.clamp_min(1e-30) * direction
        pushed = levels[0].apply(direction)
        step = new / (direction * pushed).sum((1, 2), keepdim=True).clamp_min(1e-30)
        u, residual, old = u + step * direction, residual - step * pushed, new
    return u


def _guess(weighted: Tensor, known: Tensor, tolerance: float, iterations: int) -> Tensor:
    """The solution at half the size, enlarged; of a small one what `pull_push` gives."""
    height, width = known.shape
    if max(height, width) <= SMALL:
        return pull_push(weighted, known)
    amount = _sum_pairs(_sum_pairs(known, 0), 1)
    half = _sum_pairs(_sum_pairs(weighted, 0), 1) / amount.clamp_min(1)
    if not (amount <= 0).any():
        return pull_push(weighted, known)
    solved = torch.where(amount <= 0, _solve(half, amount <= 0, tolerance, iterations), half)
    return F.interpolate(solved[None], scale_factor=2, mode="bilinear", align_corners=False)[0, :, :height, :width]


def _pulls(known: Tensor) -> Tensor:
    """The sum of the four neighbours."""
    padded = F.pad(known, (1, 1, 1, 1))
    return padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] + padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1]


def _finest(hole: Tensor) -> _Level:
    inside = hole.float()
    return _level(inside[:, 1:] * inside[:, :-1], inside[1:] * inside[:-1], _pulls((1 - inside)[None])[0] * inside)


def _levels(hole: Tensor) -> list[_Level]:
    levels = [_finest(hole)]
    right, down, anchors = levels[0].right, levels[0].down, _pulls((~hole).float()[None])[0] * hole
    while max(anchors.shape) > COARSEST:
        # Blocks of 2 x 2 cells in one: springs across the blocks' borders add up. Halved, as moving whole blocks
        # against each other takes twice the energy of the smooth motion it stands for.
        right, down = _sum_pairs(right[:, 1::2], 0) / 2, _sum_pairs(down[1::2], 1) / 2
        anchors = _sum_pairs(_sum_pairs(anchors, 0), 1) / 2
        levels.append(_level(right, down, anchors))
    return levels


def _level(right: Tensor, down: Tensor, anchors: Tensor) -> _Level:
    sides = F.pad(right, (0, 1)), F.pad(right, (1, 0)), F.pad(down, (0, 0, 0, 1)), F.pad(down, (0, 0, 1, 0))
    return _Level(right, down, anchors + sum(sides))


def _sum_pairs(x: Tensor, dim: int) -> Tensor:
    """Along the last but one (0) or the last (1) dimension; an odd one out stays alone."""
    if x.shape[dim - 2] % 2:
        x = F.pad(x, (0, 0, 0, 1) if dim == 0 else (0, 1))
    return x.unflatten(dim - 2, (-1, 2)).sum(dim - 2 if dim == 0 else -1)


def _cycle(levels: list[_Level], residual: Tensor) -> Tensor:
    """One V-cycle from zero: an approximate solution for this right-hand side."""
    level, coarser = levels[0], levels[1:]
    inverse = DAMPING / level.diagonal.clamp_min(1e-30) * (level.diagonal > 0)
    if not coarser:
        u = inverse * residual
        for _ in range(20):
            u = u + inverse * (residual - level.apply(u))
        return u
    u = inverse * residual
    for _ in range(SWEEPS - 1):
        u = u + inverse * (residual - level.apply(u))
    rest = _sum_pairs(_sum_pairs(residual - level.apply(u), 0), 1)
    height, width = residual.shape[-2:]
    step = _cycle(coarser, rest).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]
    u = u + step * (level.diagonal > 0)
    for _ in range(SWEEPS):
        u = u + inverse * (residual - level.apply(u))
    return u


def pull_push(weighted: Tensor, weight: Tensor) -> Tensor:
    """Means of what is known, ever coarser where less is known near by.

    weighted: (C, H, W), the values times their weights; weight: (H, W), 0 where unknown, not 0 everywhere.
    """
    mean = weighted / weight.clamp_min(1e-6)
    if weight.min() > 0 or max(weight.shape) == 1:
        return mean
    height, width = weight.shape
    total, amount = _sum_pairs(_sum_pairs(weighted, 0), 1), _sum_pairs(_sum_pairs(weight, 0), 1)
    share = amount.clamp(max=1) / amount.clamp_min(1e-6)
    coarse = pull_push(total * share, amount * share)
    smooth = F.interpolate(coarse[None], scale_factor=2, mode="bilinear", align_corners=False)[0, :, :height, :width]
    certainty = weight.clamp(0, 1)
    return certainty * mean + (1 - certainty) * smooth
