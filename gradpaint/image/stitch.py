"""Puts results back into the images they were cropped from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..method.known_region import combine_image
from .colour import match_colour
from .crop import Crop, resize, resize_mask
from .mask_tools import grow, ramp, snap
from .nearest import distance_to

BLEEDING = 6  # latent cells around the hole that its content bleeds into
ENOUGH = 0.1  # share of the crop that suffices to compare colors on; with little known, a quarter of that does
TRUSTED = 0.75  # share of the crop; with less than this known, colors are matched in proportion to it
DEFAULT_CELL = 8  # pixels, if the size of the latent cells is not known


@dataclass(frozen=True)
class Stitch:
    """A batch of images and which part of them was sampled.

    image: (B, 3 or 4, H, W), the original images, with their pads if they are outpainted.
    mask: (B, 1, H, W), above 0 where the result goes.
    sampled: (B, 1, h, w), the mask used for sampling, at the encoded size and constant in each latent cell.
    crop: which boxes of the images were encoded, and at what size.
    frames: for a video, the number of frames that the decoder returns; those beyond B are dropped. 0: separate images.
    cell: side of a latent cell in pixels of the encoded image.
    """

    image: Tensor
    mask: Tensor
    sampled: Tensor
    crop: Crop
    frames: int = 0
    cell: int = DEFAULT_CELL

    def sources(self, count: int) -> list[tuple[int, int]]:
        """Return the indices (result, image) that belong together.

        Args:
            count: number of results; a multiple of the images (or frames) if the batch was repeated.

        Raises:
            ValueError: another number of results.
        """
        images, batch = len(self.image), self.frames or len(self.image)
        if count % batch:
            unit = "frames" if self.frames else "images"
            raise ValueError(
                f"image holds {count} images, but stitch belongs to {batch} {unit}: connect the decoded result "
                "of the latent that came with the stitch, the whole batch or repeats of it. To continue with "
                "some of the images, select them after the composite"
            )
        return [(i, i % batch) for i in range(count) if i % batch < images]


def composite(
    result: Tensor, stitch: Stitch, blend: int = 0, colour_match: str = "off", strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Put results into the images.

    Args:
        result: (N, 3 or more, h, w) in [0, 1], the repainted version of what was encoded; resized if necessary.
        stitch: what the result belongs to.
        blend: width in pixels of the band around the mask in which result and image mix. Farther away, images don't
            change by a single bit.
        colour_match: kind of color matching, see `match_colour`.
        strength: of the color matching, 0 to 1.

    Returns:
        The images (N, 3 or 4, H, W) and the share of the result in each pixel (N, 1, H, W).

    Raises:
        ValueError: the number of results does not fit the stitch, or an unknown `colour_match`.
    """
    sources = stitch.sources(len(result))
    weights = {i: _weight(stitch, i, blend) for i in {image for _, image in sources}}
    images, shares = [], []
    for index, i in sources:
        image, (rows, columns) = stitch.image[i].clone(), _box(stitch, i)
        new = _in_box(result[index : index + 1, :3].to(image.device, torch.float32), stitch.crop)[0]
        old = image[:3, rows, columns]
        if colour_match != "off":
            known, trust = _known(stitch, i)
            new = match_colour(new, old.float(), known, colour_match, strength * trust).clamp(0, 1)
        old.copy_(combine_image(new.to(old), old, weights[i][0].to(old)))
        images.append(image)
        share = torch.zeros_like(stitch.mask[i], dtype=torch.float32)
        share[:, rows, columns] = weights[i][0]
        shares.append(share)
    return torch.stack(images), torch.stack(shares)


def _box(stitch: Stitch, i: int) -> tuple[slice, slice]:
    """Return rows and columns of image i's box."""
    (top, left), (height, width) = stitch.crop.corners[i], stitch.crop.box
    return slice(top, top + height), slice(left, left + width)


def _box_mask(stitch: Stitch, i: int) -> Tensor:
    """Return the mask in image i's box, (1, 1, box)."""
    rows, columns = _box(stitch, i)
    return stitch.mask[i : i + 1, :, rows, columns]


def _in_box(result: Tensor, crop: Crop) -> Tensor:
    """Cut off the padding at the right and bottom and resize to the box."""
    height, width = (
        max(1, round(side * content / full))
        for side, content, full in zip(result.shape[-2:], crop.content, crop.encoded)
    )
    return resize(result[..., :height, :width], crop.box)


def _weight(stitch: Stitch, i: int, blend: int) -> Tensor:
    """Return the result's share in image i's box, (1, 1, box): 1 in the hole, falling to 0 before the box ends."""
    mask = _box_mask(stitch, i)
    height, width = stitch.mask.shape[-2:]
    return ramp(mask, min(blend, _margin(mask[0, 0] > 0, stitch.crop.corners[i], (height, width))))


def _margin(hole: Tensor, corner: tuple[int, int], canvas: tuple[int, int]) -> int:
    """Return the pixels between the hole and those sides of its box that are not sides of the image."""
    room = [max(canvas)]
    for axis in (0, 1):
        filled = hole.any(1 - axis).nonzero()
        if len(filled) and corner[axis] > 0:
            room.append(int(filled[0]))
        if len(filled) and corner[axis] + hole.shape[axis] < canvas[axis]:
            room.append(hole.shape[axis] - 1 - int(filled[-1]))
    return min(room)


def _known(stitch: Stitch, i: int) -> tuple[Tensor, float]:
    """Return where image i and its result should have the same colors, (box) bool, and how far to trust that, 0 to 1.

    Pixels near the hole are left out, because the decoder carries the hole's content into the cells around it. With
    another photograph in the hole, this affects the match no more at 6 cells from it than far away (measured). If few
    pixels are that far away, closer ones are used.

    Autoencoders normalize over the image, so whatever fills most of it affects all colors. On ten photographs with less
    than half of the image known, the full match made the hole's colors worse, and much worse in outpainting.
    """
    height, width = stitch.crop.content
    sampled = resize_mask(stitch.sampled[i : i + 1, :, :height, :width], stitch.crop.box)
    hole = (sampled > 0) | (_box_mask(stitch, i) > 0)
    share = 1 - float(hole.float().mean())
    reach = round(BLEEDING * stitch.cell * stitch.crop.box[0] / height)
    distance = distance_to(hole, reach)[0, 0]
    while reach and (distance > reach).float().mean() < min(ENOUGH, share / 4):
        reach //= 2
    return distance > reach, min(1.0, share / TRUSTED)


def whole_image(image: Tensor, mask: Tensor) -> Stitch:
    """Make the stitch of images (B, C, H, W) that were sampled uncropped with this mask (B, 1, H, W)."""
    size = image.shape[-2], image.shape[-1]
    hole = snap(mask)
    return Stitch(image, hole, grow(hole, DEFAULT_CELL), Crop(((0, 0),) * len(image), size, size, size))
