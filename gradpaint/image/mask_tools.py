"""What is done to a mask before sampling. Masks are (B, 1, H, W) in [0, 1], 1 = repaint; grey ones stay grey."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .nearest import distance_to, hole_box

NEARLY = 4 / 255  # values this close to black or white are meant to be black or white (JPEG noise)


def snap(mask: Tensor, threshold: float = 0.0) -> Tensor:
    """Nearly black and nearly white become black and white; with a threshold, all below it 0 and the rest 1."""
    if threshold > 0:
        return (mask >= threshold).to(mask)
    return mask.clamp(0, 1).where(mask < 1 - NEARLY, 1.0).where(mask > NEARLY, 0.0)


def grow(mask: Tensor, pixels: int) -> Tensor:
    """Each pixel takes the highest value within that distance (a disc); negative: the lowest, which shrinks.

    What lies beyond the image counts as more of the same, so a hole at the image's border stays at it.
    """
    if pixels < 0:
        return -_highest(-mask, -pixels)
    return _highest(mask, pixels)


def _highest(mask: Tensor, radius: int) -> Tensor:
    if radius == 0 or not mask.any():
        return mask
    radius = min(radius, math.ceil(math.hypot(*mask.shape[-2:])))
    low, high = mask.aminmax()
    if ((mask == low) | (mask == high)).all():  # black and white
        return torch.where(distance_to(mask == high, radius) <= radius, high, low)
    out, row, reach = mask, mask, 0
    for dy in range(radius, -1, -1):  # rows above and below at this distance: the disc is the wider, the nearer
        width = math.isqrt(radius * radius - dy * dy)
        for dx in range(reach + 1, width + 1):
            row = _raise(_raise(row, mask, dx, -1), mask, -dx, -1)
        reach = max(reach, width)
        out = _raise(out, row, dy, -2)
        out = _raise(out, row, -dy, -2) if dy else out
    return out


def _raise(low: Tensor, other: Tensor, by: int, dim: int) -> Tensor:
    """The higher of the two, `other` moved by that many pixels along dim."""
    size, kept = low.shape[dim], low.shape[dim] - abs(by)
    if kept <= 0:
        return low
    out = low.clone()
    to, source = max(by, 0), max(-by, 0)
    target = out.narrow(dim, to, size - abs(by))
    torch.maximum(target, other.narrow(dim, source, kept), out=target)
    return out


def ramp(mask: Tensor, width: int) -> Tensor:
    """1 where the mask is above 0, falling smoothly to 0 over that many pixels outside of it.

    The pixel at distance d has the weight s(1 - d / (width + 1)), s the smoothstep 3t^2 - 2t^3.
    """
    hole = mask > 0
    if width <= 0 or not hole.any():
        return hole.to(mask)
    box = (..., *hole_box(hole.any(0)[0], width))
    t = (1 - distance_to(hole[box], width) / (width + 1)).clamp_min(0)
    out = torch.zeros_like(hole, dtype=torch.float32)
    out[box] = t * t * (3 - 2 * t)
    return out


def feather(mask: Tensor, width: int) -> Tensor:
    """The mask with a ramp of that many pixels around it; what was above the ramp stays."""
    return mask if width <= 0 else torch.maximum(mask, ramp(mask.where(mask >= 0.5, 0.0), width))


def fill_holes(mask: Tensor) -> Tensor:
    """Known spots that the mask encloses become part of it (value 1)."""
    free = mask <= 0
    reached = free & _border(free)
    while True:  # each round follows straight runs in all four directions, so there are as many as bends
        before = reached
        for dim in (-1, -2):
            reached = _along_runs(reached, free, dim)
        if torch.equal(before, reached):
            return torch.where(free & ~reached, 1.0, mask)


def _border(like: Tensor) -> Tensor:
    border = torch.ones_like(like)
    border[..., 1:-1, 1:-1] = False
    return border


def _along_runs(reached: Tensor, free: Tensor, dim: int) -> Tensor:
    """Every run of free pixels along dim that holds a reached one becomes reached."""
    run = (~free).cumsum(dim)
    hit = torch.zeros(run.shape[:dim] + (run.shape[dim] + 1,) + run.shape[dim:][1:], device=run.device)
    hit = hit.scatter_reduce(dim, run, reached.float(), "amax")
    return free & (hit.gather(dim, run) > 0)


def block_max(mask: Tensor, height: int, width: int | None = None) -> Tensor:
    """Every block of height x width pixels takes its highest value; the size must be a multiple of the block's.

    A latent cell is repainted if any of its pixels is. Such a mask comes out of bilinear downscaling by the block's
    size as it is, with nothing mixed.
    """
    width = width or height
    blocks = F.max_pool2d(mask.float(), (height, width))
    return blocks.repeat_interleave(height, -2).repeat_interleave(width, -1)


def frame_max(mask: Tensor, starts: tuple[int, ...]) -> Tensor:
    """(T, 1, H, W): frames from one start up to the next share a latent frame, and take their highest value."""
    groups = [mask[a:b].amax(0, keepdim=True).expand(b - a, -1, -1, -1) for a, b in zip(starts, starts[1:])]
    return torch.cat(groups)


def check_something_to_do(mask: Tensor) -> None:
    """ValueError if no image of the batch has something to repaint or if none has something known."""
    size = f"{mask.shape[-1]} x {mask.shape[-2]}"
    if not (mask > 0).any():
        raise ValueError(
            f"mask ({size}) is black everywhere: nothing to repaint. Paint the hole white (Load Image: right-click, "
            "Open in MaskEditor), or to extend the picture set pad_left, pad_top, pad_right or pad_bottom. Load Image "
            "gives a black 64 x 64 mask for a picture without transparency"
        )
    if (mask >= 1).all():
        raise ValueError(
            f"mask ({size}) is white everywhere: nothing is known, so there is nothing to inpaint from. If it is "
            "black where the picture is to be repainted, flip invert_mask; else grow less, or raise threshold"
        )
