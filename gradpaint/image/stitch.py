"""Back into the picture: what must be kept of it while a part is sampled, and how the result is put in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..method.known_region import combine_image
from .colour import match_colour
from .crop import Plan, resize, resize_mask
from .mask_tools import grow, ramp, snap
from .nearest import distance_to

BLEEDING = 6  # latent cells
ENOUGH = 0.1  # of the picture or crop, to compare colours on; of a small known part a quarter is
TRUSTED = 0.75  # of the picture or crop: where less is known, colours are matched in proportion to it
UNKNOWN_CELL = 8  # pixels: where nobody tells how large the latent cells were


@dataclass(frozen=True)
class Stitch:
    """A batch of pictures and what of them was sampled.

    image: (B, 3 or 4, H, W), the pictures as they came, extended where they are outpainted.
    mask: (B, 1, H, W), above 0 where the result is put in.
    sampled: (B, 1, h, w), the mask as it was sampled, in pixels of what was encoded: whole latent cells.
    plan: which boxes of the pictures were encoded, and at which size.
    frames: of a video, how many frames come out of the decoder; those beyond B are dropped. 0: separate pictures.
    cell: side of a latent cell, in pixels of what was encoded.
    """

    image: Tensor
    mask: Tensor
    sampled: Tensor
    plan: Plan
    frames: int = 0
    cell: int = UNKNOWN_CELL

    def sources(self, count: int) -> list[tuple[int, int]]:
        """Which (result, picture) belong together, for that many results. Batches may have been repeated."""
        pictures, every = len(self.image), self.frames or len(self.image)
        if count % every:
            what = f"{every} frames" if self.frames else f"{every} pictures"
            raise ValueError(
                f"image holds {count} pictures, but stitch belongs to {what}: connect the decoded result "
                "of the latent that came with the stitch, all of it, or repeats of all of it. To "
                "go on with some of the pictures, choose them after the composite"
            )
        return [(i, i % every) for i in range(count) if i % every < pictures]


def composite(
    result: Tensor, stitch: Stitch, blend: int = 0, colour_match: str = "off", strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Puts the result into the pictures.

    Args:
        result: (N, 3 or more, h, w) in [0, 1], what was encoded, repainted; at another size it is resized.
        blend: width in pixels of the band outside the mask in which result and picture mix. Beyond it, pictures
            stay bit for bit as they are.
        colour_match, strength: see `match_colour`.

    Returns: the pictures (N, 3 or 4, H, W) and the share of the result in them (N, 1, H, W).
    """
    sources = stitch.sources(len(result))
    weights = {i: _weight(stitch, i, blend) for i in {picture for _, picture in sources}}
    images, shares = [], []
    for index, picture in sources:
        original, part = stitch.image[picture].clone(), _box(stitch, picture)
        here = _in_picture(result[index : index + 1, :3].to(original.device, torch.float32), stitch.plan)[0]
        old = original[(slice(3),) + part]
        if colour_match != "off":
            known, trust = _known(stitch, picture)
            here = match_colour(here, old.float(), known, colour_match, strength * trust).clamp(0, 1)
        old.copy_(combine_image(here.to(old), old, weights[picture][0].to(old)))
        images.append(original)
        shares.append(torch.zeros_like(stitch.mask[picture], dtype=torch.float32))
        shares[-1][(slice(None),) + part] = weights[picture][0]
    return torch.stack(images), torch.stack(shares)


def _box(stitch: Stitch, picture: int) -> tuple[slice, slice]:
    (top, left), (height, width) = stitch.plan.corners[picture], stitch.plan.box
    return slice(top, top + height), slice(left, left + width)


def _in_picture(result: Tensor, plan: Plan) -> Tensor:
    """Without what was added at the right and bottom, and at the box's size."""
    height, width = (
        max(1, round(side * content / full))
        for side, content, full in zip(result.shape[-2:], plan.content, plan.encoded)
    )
    return resize(result[..., :height, :width], plan.box)


def _weight(stitch: Stitch, picture: int, blend: int) -> Tensor:
    """(1, 1, box), 1 in the hole, falling to 0 over the band, which ends before the box does."""
    mask = stitch.mask[picture : picture + 1][(...,) + _box(stitch, picture)]
    return ramp(mask, min(blend, _margin(mask[0, 0] > 0, stitch.plan.corners[picture], stitch.mask.shape[-2:])))


def _margin(hole: Tensor, corner: tuple[int, int], canvas: tuple[int, int]) -> int:
    """Pixels between the hole and those sides of its box that lie inside the picture."""
    room = [max(canvas)]
    for axis in (0, 1):
        where = hole.any(1 - axis).nonzero()
        if len(where) and corner[axis] > 0:
            room.append(int(where[0]))
        if len(where) and corner[axis] + hole.shape[axis] < canvas[axis]:
            room.append(hole.shape[axis] - 1 - int(where[-1]))
    return min(room)


def _known(stitch: Stitch, picture: int) -> tuple[Tensor, float]:
    """(box), bool: where the result should look as the picture does; and how far, 0 to 1, that speaks for the hole.

    Not beside the hole: the decoder carries what is in it into the cells around. Measured with holes full of another
    photograph: at 6 cells from it, the match is moved by that no more than far away. Where little is farther than
    that, nearer pixels count too.

    Autoencoders normalise over the whole picture, so what fills most of it decides on everybody's colours. Measured
    on ten photographs: with less known than half, the full match makes the hole's colours worse, in outpainting much.
    """
    height, width = stitch.plan.content
    sampled = resize_mask(stitch.sampled[picture : picture + 1, :, :height, :width], stitch.plan.box)
    mask = stitch.mask[picture : picture + 1][(...,) + _box(stitch, picture)]
    hole = (sampled > 0) | (mask > 0)
    share = 1 - float(hole.float().mean())
    reach = round(BLEEDING * stitch.cell * stitch.plan.box[0] / height)
    distance = distance_to(hole, reach)[0, 0]
    while reach and (distance > reach).float().mean() < min(ENOUGH, share / 4):
        reach //= 2
    return distance > reach, min(1.0, share / TRUSTED)


def whole_image(image: Tensor, mask: Tensor) -> Stitch:
    """The stitch of pictures (B, C, H, W) that were sampled as a whole with that mask (B, 1, H, W), at any size."""
    size = tuple(image.shape[-2:])
    plan = Plan(((0, 0),) * len(image), size, size, size)
    hole = snap(mask)
    return Stitch(image, hole, grow(hole, UNKNOWN_CELL), plan)
