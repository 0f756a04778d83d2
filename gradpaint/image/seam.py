"""How visible a hole's border is in a finished image, with no true image to compare with."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-8  # of mean squared steps between pixels: two flat sides and no step between them are no seam


def border_contrast(image: Tensor, mask: Tensor) -> Tensor:
    """Squared steps across the hole's border over those just beside it, (B,): 1 is a border like its surroundings.

    image: (B, C, ..., H, W), any range; mask: (B or 1, 1, ..., H, W), 1 = repainted, a border lies where it crosses
    1/2. For each pair of horizontal or vertical neighbours of which one is in the hole, the squared difference is
    compared with the mean of the next pair outward and the next pair inward on the same line, where those lie wholly
    outside and inside. Sums over all such borders are divided, so flat places do not make it explode. NaN without a
    border.
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
        left, border, right = (change.narrow(axis, i, change.shape[axis] - 2) for i in range(3))
        clean = (border & ~left & ~right).expand_as(here)  # the pairs beside it don't cross a border themselves
        across += (here * clean).flatten(1).sum(1)
        beside += ((before + after) / 2 * clean).flatten(1).sum(1)
        count = clean.flatten(1).sum(1)
        across += FLOOR * count
        beside += FLOOR * count
    return across / beside
