"""Nested latents (video and audio of one clip), which the host's samplers see packed: all parts flat in one (B, 1, N).

The mask is packed like them, so the known region needs no more. What does need the parts' own shapes asks here.
"""

from __future__ import annotations

import math

import torch


def part_shapes(conds: dict, packed: torch.Size) -> list[torch.Size]:
    """The shapes of the tensors in a state of shape `packed`, several for a nested latent. conds: the guider's.

    The host tells them to the models that take nested latents, in their conditioning.
    """
    for cond in (cond for group in conds.values() for cond in group):
        shapes = getattr(cond.get("model_conds", {}).get("latent_shapes"), "cond", None)
        if shapes is not None and len(shapes) > 1:
            return [torch.Size((packed[0], *shape[1:])) for shape in shapes]
    return [packed]


def first_part(t: torch.Tensor, conds: dict) -> torch.Tensor:
    """The first tensor packed into t, of a nested latent the video; t itself where nothing is packed."""
    shapes = part_shapes(conds, t.shape)
    if len(shapes) == 1:
        return t
    return t.flatten(1)[:, : math.prod(shapes[0][1:])].reshape(shapes[0])
