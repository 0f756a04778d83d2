"""Growing, feathering, filling, and masks whose values the host's bilinear downscaling does not mix."""

import pytest
import torch
import torch.nn.functional as F

from gradpaint.image import mask_tools
from gradpaint.masks import make_masks


def disc_max(mask, radius):
    """Grow a mask pixel by pixel, by definition."""
    out, (height, width) = mask.clone(), mask.shape[-2:]
    for y in range(height):
        for x in range(width):
            out[0, 0, y, x] = max(
                float(mask[0, 0, j, i])
                for j in range(height)
                for i in range(width)
                if (j - y) ** 2 + (i - x) ** 2 <= radius**2
            )
    return out


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 40])
def test_grow_is_the_highest_in_a_disc(radius):
    generator = torch.Generator().manual_seed(radius)
    mask = torch.rand(1, 1, 13, 17, generator=generator) * (torch.rand(1, 1, 13, 17, generator=generator) < 0.05)
    mask[..., 2, 3] = 0.4
    assert torch.equal(mask_tools.grow(mask, radius), disc_max(mask, radius))
    assert torch.equal(-mask_tools.grow(-mask, -radius), disc_max(mask, radius))
    spots = torch.stack(
        [mask[0] > 0, mask[0] > 1, mask[0] < 1]
    ).float()  # black and white masks are grown by another method
    assert torch.equal(mask_tools.grow(spots, radius), disc_max(spots, radius))
    assert torch.equal(mask_tools.grow(1 - spots, -radius), 1 - disc_max(spots, radius))


def test_shrinking_spares_the_images_border():
    mask = torch.zeros(1, 1, 10, 10)
    mask[..., :6] = 1
    assert mask_tools.grow(mask, -2)[0, 0, :, 3:5].tolist() == [[1, 0]] * 10


def test_snap():
    mask = torch.tensor([0.0, 3 / 255, 0.02, 0.5, 0.98, 252 / 255, 1.0]).reshape(1, 1, 1, -1)
    assert torch.allclose(mask_tools.snap(mask).flatten(), torch.tensor([0, 0, 0.02, 0.5, 0.98, 1, 1]))
    assert mask_tools.snap(mask, 0.5).flatten().tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_ramp_falls_smoothly_outside():
    mask = torch.zeros(1, 1, 1, 12)
    mask[..., :4] = torch.tensor([1.0, 0.3, 1.0, 1.0])  # gray counts as hole
    ramp = mask_tools.ramp(mask, 3).flatten()
    t = torch.tensor([0.75, 0.5, 0.25])
    assert torch.allclose(ramp, torch.cat([torch.ones(4), t * t * (3 - 2 * t), torch.zeros(5)]))
    assert torch.equal(mask_tools.ramp(mask, 0), (mask > 0).float())


def test_feather_keeps_the_hole_and_grey_parts():
    mask = torch.zeros(1, 1, 9, 30)
    mask[..., :5], mask[..., 25:] = 1, 0.3
    out = mask_tools.feather(mask, 6)
    assert (out[..., :5] == 1).all() and torch.allclose(out[..., 25:], torch.tensor(0.3))
    edge = out[0, 0, 4, 5:11]
    assert (edge.diff() < 0).all() and 0 < edge[-1] < edge[0] < 1 and (out[..., 11:25] == 0).all()


def test_fill_holes():
    """A spiral of known pixels that leads outside stays known; the inside of a ring does not."""
    rows = ["#########", "#...#...#", "#.#.#.#.#", "#.#...#.#", "#.#######", "#.......#", "#######.#"]
    spiral = torch.tensor([[float(c == "#") for c in row] for row in rows])[None, None]
    assert torch.equal(mask_tools.fill_holes(spiral), spiral)
    closed = spiral.clone()
    closed[..., -1, 7] = 0.2  # gray closes the ring too
    assert mask_tools.fill_holes(closed).sum() == (closed == 0).sum() + (closed == 1).sum() + 0.2
    both = mask_tools.fill_holes(torch.cat([spiral, closed]))  # images are independent
    assert torch.equal(both[0], spiral[0]) and (both[1] > 0).all()


@pytest.mark.parametrize("cell", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("kind", ["thin", "random_pixels", "coverage"])
def test_blocks_survive_the_hosts_downscaling(cell, kind):
    mask = make_masks(kind, 4 * 32, 5 * 32, [1, 2])
    if kind == "coverage":
        mask = mask * torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    blocks = mask_tools.block_max(mask, cell)
    small = F.interpolate(blocks, size=(128 // cell, 160 // cell), mode="bilinear")
    assert torch.equal(small, F.max_pool2d(mask, cell))
    assert ((small > 0).repeat_interleave(cell, 2).repeat_interleave(cell, 3) >= (mask > 0)).all()


def test_frames_of_one_latent_frame_share_their_mask():
    mask = torch.zeros(5, 1, 2, 2)
    mask[0, 0, 0, 0] = mask[3, 0, 1, 1] = 0.5
    shared = mask_tools.frame_max(mask, (0, 1, 5))
    assert torch.equal(shared[0], mask[0]) and all(torch.equal(shared[i], mask[3]) for i in range(1, 5))


def test_masks_with_nothing_to_do():
    mask = torch.zeros(2, 1, 4, 6)
    with pytest.raises(ValueError, match="mask .6 x 4. is black everywhere.*Paint the hole white"):
        mask_tools.check_mask(mask)
    with pytest.raises(ValueError, match="white everywhere.*flip invert_mask"):
        mask_tools.check_mask(mask + 1)
    mask[1, 0, 0, 0] = 1
    mask_tools.check_mask(mask)
    mask[0] = 1
    mask_tools.check_mask(mask)
