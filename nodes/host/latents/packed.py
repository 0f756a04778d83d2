"""Nested latents (video and audio of one clip), which the host's samplers see packed into one tensor (B, 1, N).

The mask is packed in the same way, so the known region needs nothing else. Code that needs the components' own shapes
asks here.
"""

from __future__ import annotations

import math

import torch


def component_shapes(conds: dict, packed: torch.Size) -> list[torch.Size]:
    """Return the shapes of the components in a state of shape `packed`: several for a nested latent, otherwise one.

    Args:
        conds: the guider's; the host puts the shapes there for models that take nested latents.
        packed: (B, 1, N), or the shape of an ordinary state.
    """
    for cond in (cond for group in conds.values() for cond in group):
        shapes = getattr(cond.get("model_conds", {}).get("latent_shapes"), "cond", None)
        if shapes is not None and len(shapes) > 1:
            return [torch.Size((packed[0], *shape[1:])) for shape in shapes]
    return [packed]


def first_component(t: torch.Tensor, conds: dict) -> torch.Tensor:
    """Return the first component packed into t (the video of a nested latent), or t itself if nothing is packed."""
    shapes = component_shapes(conds, t.shape)
    if len(shapes) == 1:
        return t
    return t.flatten(1)[:, : math.prod(shapes[0][1:])].reshape(shapes[0])
