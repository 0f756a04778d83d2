"""Measures how visible a hole's border is in a finished image, without the true image."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-8  # added to squared steps, so that flat sides with no step between them count as no seam


def border_contrast(image: Tensor, mask: Tensor) -> Tensor:
    """Divide the squared steps across the hole's border by those next to it; 1 is a border like its surroundings.

    A step is the difference of two horizontal or vertical neighbors. It crosses the border if one of them is in the
    hole (mask above 1/2). It is compared with the mean of the next step outward and the next one inward on the same
    line, unless these cross a border themselves. The ratio is one of sums over the border, so flat areas don't blow it
    up.

    Args:
        image: (B, C, ..., H, W), any range.
        mask: (B or 1, 1, ..., H, W), 1 = repaint.

    Returns:
        (B,) float64, NaN for an image without a border.

    Raises:
        ValueError: the mask does not fit the image.
    """
    if image.ndim != mask.ndim or image.shape[-2:] != mask.shape[-2:] or mask.shape[0] not in (1, len(image)):
        raise ValueError(f"mask has shape {tuple(mask.shape)}, but must fit the image's {tuple(image.shape)}")
    hole = (mask > 0.5).expand(len(image), *mask.shape[1:])
    across = torch.zeros(len(image), dtype=torch.float64, device=image.device)
    beside = across.clone()
    for axis in (-1, -2):
        if image.shape[axis] < 4:
            continue
        steps = image.double().diff(dim=axis).square().mean(1, keepdim=True)
        change = hole.diff(dim=axis)
        before, here, after = (steps.narrow(axis, i, steps.shape[axis] - 2) for i in range(3))
        outward, border, inward = (change.narrow(axis, i, change.shape[axis] - 2) for i in range(3))
        clean = (border & ~outward & ~inward).expand_as(here)
        across += (here * clean).flatten(1).sum(1)
        beside += ((before + after) / 2 * clean).flatten(1).sum(1)
        count = clean.flatten(1).sum(1)
        across += FLOOR * count
        beside += FLOOR * count
    return across / beside
