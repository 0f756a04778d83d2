"""Changes masks before sampling. Masks are (B, 1, H, W) in [0, 1], 1 = repaint; gray stays gray."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .nearest import distance_to, hole_box

NEARLY = 4 / 255  # values this close to black or white count as black or white (JPEG noise)


def snap(mask: Tensor, threshold: float = 0.0) -> Tensor:
    """Make nearly black and nearly white values black and white; with a threshold, all others too."""
    if threshold > 0:
        return (mask >= threshold).to(mask)
    return mask.clamp(0, 1).where(mask < 1 - NEARLY, 1.0).where(mask > NEARLY, 0.0)


def grow(mask: Tensor, pixels: int) -> Tensor:
    """Give each pixel the highest value within that distance (a disc), or the lowest if it is negative, to shrink.

    Beyond its edge the image counts as continuing, so a hole that touches the edge still does after shrinking.
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
    for dy in range(radius, -1, -1):  # rows at this distance above and below; the closer, the wider the disc
        width = math.isqrt(radius * radius - dy * dy)
        for dx in range(reach + 1, width + 1):
            row = _raise(_raise(row, mask, dx, -1), mask, -dx, -1)
        reach = max(reach, width)
        out = _raise(out, row, dy, -2)
        out = _raise(out, row, -dy, -2) if dy else out
    return out


def _raise(low: Tensor, other: Tensor, by: int, dim: int) -> Tensor:
    """Return the higher of both at each pixel, with `other` moved by that many pixels along `dim`."""
    overlap = low.shape[dim] - abs(by)
    if overlap <= 0:
        return low
    out = low.clone()
    target = out.narrow(dim, max(by, 0), overlap)
    torch.maximum(target, other.narrow(dim, max(-by, 0), overlap), out=target)
    return out


def ramp(mask: Tensor, width: int) -> Tensor:
    """Return 1 where the mask is above 0, falling smoothly to 0 over that many pixels outside.

    A pixel at distance d has weight s(1 - d / (width + 1)), where s is the smoothstep 3t^2 - 2t^3.
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
    """Add a ramp of that many pixels around the mask; higher values are kept."""
    return mask if width <= 0 else torch.maximum(mask, ramp(mask.where(mask >= 0.5, 0.0), width))


def fill_holes(mask: Tensor) -> Tensor:
    """Add the known areas that the mask encloses to it (value 1)."""
    free = mask <= 0
    reached = free & _border(free)
    while True:  # each pass follows straight runs in all directions, so there are as many passes as bends
        before = reached
        for dim in (-1, -2):
            reached = _along_runs(reached, free, dim)
        if torch.equal(before, reached):
            return torch.where(free & ~reached, 1.0, mask)


def _border(like: Tensor) -> Tensor:
    """Return a mask of the pixels at the image's edge."""
    border = torch.ones_like(like)
    border[..., 1:-1, 1:-1] = False
    return border


def _along_runs(reached: Tensor, free: Tensor, dim: int) -> Tensor:
    """Extend `reached` to all runs of free pixels along `dim` that contain a reached one."""
    run = (~free).cumsum(dim)
    hit = torch.zeros(run.shape[:dim] + (run.shape[dim] + 1,) + run.shape[dim:][1:], device=run.device)
    hit = hit.scatter_reduce(dim, run, reached.float(), "amax")
    return free & (hit.gather(dim, run) > 0)


def block_max(mask: Tensor, height: int, width: int | None = None) -> Tensor:
    """Give each block of height x width pixels its highest value, so a latent cell is repainted if any pixel is.

    The mask's size must be a multiple of the block's. Bilinear downscaling by the block's size then mixes no values.
    """
    width = width or height
    blocks = F.max_pool2d(mask.float(), (height, width))
    return blocks.repeat_interleave(height, -2).repeat_interleave(width, -1)


def frame_max(mask: Tensor, starts: tuple[int, ...]) -> Tensor:
    """Give the frames of each latent frame their highest values.

    Args:
        mask: (T, 1, H, W), one frame each.
        starts: the first frame of each latent frame, and T.
    """
    groups = [mask[a:b].amax(0, keepdim=True).expand(b - a, -1, -1, -1) for a, b in zip(starts, starts[1:])]
    return torch.cat(groups)


def check_mask(mask: Tensor) -> None:
    """Raise ValueError if nothing is to be repainted in any image of the batch, or nothing is known in any."""
    size = f"{mask.shape[-1]} x {mask.shape[-2]}"
    if not (mask > 0).any():
        raise ValueError(
            f"mask ({size}) is black everywhere: nothing to repaint. Paint the hole white (Load Image: right-click, "
            "Open in MaskEditor), or set pad_left, pad_top, pad_right or pad_bottom to extend the image. Load Image "
            "gives a black 64 x 64 mask for an image without transparency"
        )
    if (mask >= 1).all():
        raise ValueError(
            f"mask ({size}) is white everywhere: nothing is known, so there is nothing to inpaint from. If black "
            "marks what should be repainted, flip invert_mask; otherwise grow the mask less, or raise threshold"
        )
