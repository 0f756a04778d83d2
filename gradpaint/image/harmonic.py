"""Fills holes smoothly: Laplace's equation, solved by conjugate gradients with a multigrid preconditioner."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .nearest import BLOCK, hole_box

DAMPING = 0.7  # of the Jacobi sweeps
SWEEPS = 2  # before and after each coarser level; equal, so that the preconditioner is symmetric
COARSEST = 6  # side of the coarsest level, at most
LARGE = 512 * 512  # pixels; above this, the solution is computed at half the size and enlarged
RELAXING = 8  # sweeps after enlarging
SMALL = 64  # pixels; up to this side, the first guess is not solved at half the size


def harmonic_fill(values: Tensor, hole: Tensor, tolerance: float = 1e-3, iterations: int = 40) -> Tensor:
    """Fill the hole so that each pixel is the mean of its four neighbors (Laplace's equation).

    Linear ramps continue, and nothing exceeds the known values by more than the tolerance. The gradient across the
    image's edge is 0. Very large holes are solved at half their size, which loses the finest detail along the border.

    Args:
        values: (B, C, H, W), any range.
        hole: (B or 1, 1, H, W) bool. An image without known pixels becomes the mean of each channel.
        tolerance: approximate error at which to stop, relative to the range of the known values.
        iterations: maximum number of them.

    Returns:
        (B, C, H, W).
    """
    holes = hole.expand(len(values), -1, -1, -1)
    return torch.stack([_fill_one(image, mask[0], tolerance, iterations) for image, mask in zip(values, holes)])


def _fill_one(image: Tensor, hole: Tensor, tolerance: float, iterations: int) -> Tensor:
    """Fill one image (C, H, W) in hole (H, W), working on the hole's bounding box and one known pixel around it."""
    if not hole.any():
        return image
    if hole.all():
        return image.mean((1, 2), keepdim=True).expand_as(image).clone()
    rows, columns = hole_box(hole)
    box, inside = image[:, rows, columns].float(), hole[rows, columns]
    filled = image.clone()
    filled[:, rows, columns] = torch.where(inside, _solve(box, inside, tolerance, iterations), box).to(image.dtype)
    return filled


class _Level(NamedTuple):
    """The matrix of one level, as a grid of springs between the hole's cells and to the known ones.

    right: (H, W-1) and down: (H-1, W), springs between neighbors. diagonal: (H, W), the sum of each cell's springs.
    """

    right: Tensor
    down: Tensor
    diagonal: Tensor

    def apply(self, u: Tensor) -> Tensor:
        """Multiply the matrix by u (C, H, W), which is 0 outside the hole."""
        out = self.diagonal * u
        out[:, :, :-1].addcmul_(self.right, u[:, :, 1:], value=-1)
        out[:, :, 1:].addcmul_(self.right, u[:, :, :-1], value=-1)
        out[:, :-1].addcmul_(self.down, u[:, 1:], value=-1)
        out[:, 1:].addcmul_(self.down, u[:, :-1], value=-1)
        return out


def _solve(image: Tensor, hole: Tensor, tolerance: float, iterations: int) -> Tensor:
    """Solve for the hole (H, W) in image (C, H, W); 0 outside the hole."""
    known = (~hole).float()
    u = _guess(image * known, known, tolerance, iterations) * hole
    pulls = _pulls(image * known) * hole
    if hole.numel() > LARGE:
        return _relaxed(hole, u, pulls)
    spread = (image * known).flatten(1).amax(1) - (image + 3e38 * hole).flatten(1).amin(1)
    return _conjugate_gradients(_levels(hole), u, pulls, tolerance * spread.clamp_min(1e-12), iterations)


def _relaxed(hole: Tensor, u: Tensor, pulls: Tensor) -> Tensor:
    """Fit an enlarged solution u (C, H, W) to the known pixels with a few Jacobi sweeps. u is 0 outside the hole."""
    height, width = hole.shape
    weight = DAMPING / _pulls(torch.ones(1, height, width, device=u.device))[0].clamp_min(1) * hole
    out, rows = torch.empty_like(u), max(4 * RELAXING, BLOCK // width)
    for start in range(0, height, rows):  # strips fit in the processor's cache; each sweep spoils a row at either end
        low, high = max(start - RELAXING, 0), min(start + rows + RELAXING, height)
        for channel, forces, result in zip(u, pulls, out):
            strip = _swept(weight[low:high], channel[low:high], forces[low:high])
            result[start : start + rows] = strip[start - low : start - low + rows]
    return out


def _swept(weight: Tensor, u: Tensor, pulls: Tensor) -> Tensor:
    """Return u (H, W) after the sweeps; `weight` is the damping over the number of neighbors, 0 outside the hole."""
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
    """Improve u (C, H, W) until the error of each channel is at most about `goal` (C,)."""
    residual = pulls - levels[0].apply(u)
    direction = torch.zeros_like(u)
    old: Tensor | None = None
    for _ in range(iterations):
        correction = _cycle(levels, residual)
        if (correction.abs().flatten(1).amax(1) <= goal).all():  # about the remaining error
            return u + correction
        new = (residual * correction).sum((1, 2), keepdim=True)
        direction = correction if old is None else correction + new / old.clamp_min(1e-30) * direction
        pushed = levels[0].apply(direction)
        step = new / (direction * pushed).sum((1, 2), keepdim=True).clamp_min(1e-30)
        u, residual, old = u + step * direction, residual - step * pushed, new
    return u


def _guess(weighted: Tensor, known: Tensor, tolerance: float, iterations: int) -> Tensor:
    """Return a first guess: the solution at half the size, enlarged, or for small images `pull_push`."""
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
    """Sum the four neighbors of each pixel (C, H, W); outside the image they are 0."""
    padded = F.pad(known, (1, 1, 1, 1))
    return padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] + padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1]


def _finest(hole: Tensor) -> _Level:
    inside = hole.float()
    return _level(inside[:, 1:] * inside[:, :-1], inside[1:] * inside[:-1], _pulls((1 - inside)[None])[0] * inside)


def _levels(hole: Tensor) -> list[_Level]:
    levels = [_finest(hole)]
    right, down, anchors = levels[0].right, levels[0].down, _pulls((~hole).float()[None])[0] * hole
    while max(anchors.shape) > COARSEST:
        # 2 x 2 cells become one; the springs between them add up. They are halved because moving blocks against each
        # other takes twice the energy of the smooth motion that this stands for.
        right, down = _sum_pairs(right[:, 1::2], 0) / 2, _sum_pairs(down[1::2], 1) / 2
        anchors = _sum_pairs(_sum_pairs(anchors, 0), 1) / 2
        levels.append(_level(right, down, anchors))
    return levels


def _level(right: Tensor, down: Tensor, anchors: Tensor) -> _Level:
    sides = F.pad(right, (0, 1)), F.pad(right, (1, 0)), F.pad(down, (0, 0, 0, 1)), F.pad(down, (0, 0, 1, 0))
    return _Level(right, down, anchors + sum(sides))


def _sum_pairs(x: Tensor, dim: int) -> Tensor:
    """Sum pairs of rows (dim 0) or columns (dim 1) of (..., H, W); an odd last one is kept."""
    if x.shape[dim - 2] % 2:
        x = F.pad(x, (0, 0, 0, 1) if dim == 0 else (0, 1))
    return x.unflatten(dim - 2, (-1, 2)).sum(dim - 2 if dim == 0 else -1)


def _cycle(levels: list[_Level], residual: Tensor) -> Tensor:
    """Solve approximately for this right-hand side, by one V-cycle from zero."""
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
    """Fill in unknown values with local means, over larger areas the less is known nearby.

    Args:
        weighted: (C, H, W), the values times their weights.
        weight: (H, W), 0 where unknown, not 0 everywhere.

    Returns:
        (C, H, W).
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
