"""Preparing and stitching: known pixels come back bit for bit, whatever the size, crop, pads and batch."""

import pytest
import torch
import torch.nn.functional as F

from gradpaint.image.colour import COLOUR_MATCHES
from gradpaint.image.crop import Area
from gradpaint.image.fill import FILLS
from gradpaint.image.mask_tools import ramp
from gradpaint.image.prepare import Preparation, prepare
from gradpaint.image.stitch import composite, whole_image


def picture(batch, channels, height, width, seed=0):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def with_box(batch, height, width, box):
    mask = torch.zeros(batch, 1, height, width)
    mask[..., box[0] : box[1], box[2] : box[3]] = 1
    return mask


def random_case(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    batch, height, width = draw(1, 3), draw(37, 200), draw(37, 200)
    mask = torch.zeros(batch, 1, height, width)
    for one in mask:
        top, left = draw(0, height - 20), draw(0, width - 20)
        one[0, top : top + draw(1, 20), left : left + draw(1, 20)] = (1.0, 0.6)[draw(0, 1)]
    how = Preparation(
        content=FILLS[draw(0, len(FILLS) - 1)],
        grow=draw(-1, 6),
        feather=draw(0, 1) * draw(0, 9),
        pads=tuple(draw(0, 1) * draw(0, 30) for _ in range(4)),
        fill_holes=bool(draw(0, 1)),
        area=Area(
            bool(draw(0, 2)),
            1 + draw(0, 10) / 10,
            draw(0, 40),
            bool(draw(0, 1)),
            draw(0, 1) * draw(30, 200),
            (1, 8, 16)[draw(0, 2)],
        ),
    )
    image = picture(batch, 3 + draw(0, 1), height, width, seed)
    kind = (torch.float32, torch.float16, torch.bfloat16, torch.float64)[draw(0, 3)]
    return image.to(kind).contiguous(memory_format=torch.channels_last), mask, how, draw(0, 36)


@pytest.mark.parametrize("seed", range(40))
def test_known_pixels_come_back_bit_for_bit(seed):
    image, mask, how, blend = random_case(seed)
    before = image.clone(), mask.clone()
    cell = min(8, how.area.multiple)
    try:
        ready = prepare(image, mask, how, cell)
    except ValueError as error:  # the mask has shrunk to nothing
        assert how.grow < 0 and "black everywhere" in str(error)
        return
    height, width = ready.image.shape[-2:]
    assert height % how.area.multiple == width % how.area.multiple == 0 and ready.mask.shape[-2:] == (height, width)
    assert ready.image.shape[1] == 3 and 0 <= ready.image.min() and ready.image.max() <= 1
    latent_mask = F.interpolate(ready.mask, scale_factor=1 / cell, mode="bilinear")
    assert torch.equal(latent_mask, F.max_pool2d(ready.mask, cell))
    scale = (1, 1, 2, 0.5)[seed % 4]
    repainted = picture(2 * len(image), 3, int(height * scale), int(width * scale), seed + 1000)
    twice = composite(repainted, ready.stitch, blend, COLOUR_MATCHES[seed // 4 % len(COLOUR_MATCHES)])
    assert torch.equal(image, before[0]) and torch.equal(mask, before[1]), "the caller's tensors changed"
    for out, share in zip(*(x.chunk(2) for x in twice)):
        check(image, mask, how, blend, ready, out, share)


def check(image, mask, how, blend, ready, out, share):
    left, top, right, bottom = how.pads
    assert out.dtype == image.dtype and out.isfinite().all()
    assert out.shape[-2:] == (image.shape[-2] + top + bottom, image.shape[-1] + left + right) == share.shape[-2:]
    inner = (slice(None), slice(None), slice(top, top + image.shape[-2]), slice(left, left + image.shape[-1]))
    known = (share[inner] == 0).expand(image.shape)
    assert torch.equal(out[inner][known], image[known])
    hole = ready.stitch.mask > 0
    band = ramp(ready.stitch.mask, blend)
    assert (share[hole] == 1).all() and (share[band == 0] == 0).all()
    assert how.area.around or torch.equal(share, band)
    if how.grow >= 0:
        assert (hole[inner] >= (mask > 0)).all()


def test_the_result_is_in_the_hole_exactly():
    image, mask = picture(1, 3, 50, 96), with_box(1, 50, 96, (10, 30, 20, 60))
    ready = prepare(image, mask, Preparation(area=Area(multiple=16)), 8)
    repainted = picture(1, 3, 64, 96, 5)
    out, share = composite(repainted, ready.stitch)
    assert torch.equal(out, torch.where(mask == 1, repainted[:, :, :50], image)) and torch.equal(share, mask)


def test_a_crop_lands_where_it_was_cut():
    image, mask = picture(2, 3, 90, 120), torch.zeros(2, 1, 90, 120)
    mask[0, :, 5:15, 100:118] = mask[1, :, 60:70, 3:9] = 1
    ready = prepare(image, mask, Preparation("original", area=Area(True, 1.5, 8, multiple=8)), 8)
    out, _ = composite(ready.image, ready.stitch, 4)
    assert torch.allclose(out, image, atol=1e-7) and ready.image.shape[-2:] < (90, 120)


def test_an_enlarged_crop_comes_back_at_its_size():
    y, x = torch.meshgrid(torch.linspace(0, 1, 100), torch.linspace(0, 1, 140), indexing="ij")
    image = torch.stack([x, y, (x + y) / 2])[None]
    mask = with_box(1, 100, 140, (40, 60, 50, 80))
    ready = prepare(image, mask, Preparation("original", area=Area(True, 1.5, 8, size=256, multiple=64)), 8)
    assert ready.image.shape[-2] * ready.image.shape[-1] >= 256 * 256
    out, _ = composite(ready.image, ready.stitch, 4)
    assert (out - image).abs().max() < 2e-3


def test_band_width_and_falloff():
    image, mask = torch.zeros(1, 3, 40, 40), with_box(1, 40, 40, (0, 40, 0, 10))
    stitch = prepare(image, mask, Preparation(area=Area(multiple=8)), 8).stitch
    out, share = composite(torch.ones(1, 3, 40, 40), stitch, 5)
    row = share[0, 0, 20]
    assert (row[:10] == 1).all() and (row[15:] == 0).all() and (row[9:16].diff() < 0).all()
    assert torch.allclose(out[0], share[0].expand(3, -1, -1))


def test_the_band_ends_before_the_crop_does():
    image, mask = torch.zeros(1, 3, 120, 120), with_box(1, 120, 120, (50, 70, 50, 70))
    stitch = prepare(image, mask, Preparation(area=Area(True, 1.0, 8, multiple=4)), 4).stitch
    _, share = composite(torch.ones(1, 3, 36, 36), stitch, 100)
    (top, left), (height, width) = stitch.crop.corners[0], stitch.crop.box
    assert share[0, 0, top].max() < 0.06 and share[0, 0, :, left + width - 1].max() < 0.06 and share[0, 0, 60, 60] == 1
    assert (height, width) == (36, 36)


@pytest.mark.parametrize("cell, reach", [(8, 33), (1, 4)])
def test_colours_are_compared_away_from_the_hole(cell, reach):
    """The hole's content that the decoder carries into the cells around it is not a color shift."""
    image, mask = picture(1, 3, 200, 200) * 0.5 + 0.2, with_box(1, 200, 200, (88, 112, 88, 112))
    stitch = prepare(image, mask, Preparation(area=Area(multiple=8)), cell).stitch
    near = with_box(1, 200, 200, (88 - reach, 112 + reach, 88 - reach, 112 + reach))
    result = image + 0.03 + 0.2 * near * (1 - mask)
    for kind in ("smooth", "mean"):
        out, _ = composite(result, stitch, 0, kind)
        assert (out - image).abs().max() < 1e-3, kind
    assert (composite(result, stitch, 0, "off")[0] - image)[mask.expand_as(image) == 1].min() > 0.029


def test_near_pixels_count_if_none_are_far():
    image, mask = picture(1, 3, 48, 48) * 0.5 + 0.2, with_box(1, 48, 48, (16, 32, 16, 32))
    stitch = prepare(image, mask, Preparation(area=Area(multiple=8)), 8).stitch
    assert (composite(image + 0.05, stitch, 0, "smooth")[0] - image).abs().max() < 1e-3


@pytest.mark.parametrize("kind", ["smooth", "mean"])
def test_the_less_is_known_the_less_colours_are_matched(kind):
    """In outpainting, the hole changes the colors of a small known area, through the autoencoder's normalization."""
    image = torch.full((1, 3, 128, 128), 0.4)
    stitch = prepare(image, None, Preparation(pads=(64, 64, 64, 64), area=Area(multiple=8)), 8).stitch
    out, _ = composite(torch.full((1, 3, 256, 256), 0.5), stitch, 0, kind)
    assert torch.allclose(out[..., :64, :], torch.tensor(0.5 - 0.1 * 0.25 / 0.75), atol=1e-4)


def test_repeated_batches_and_wrong_ones():
    image, mask = picture(2, 3, 32, 32), with_box(2, 32, 32, (8, 16, 8, 16))
    stitch = prepare(image, mask, Preparation(area=Area(multiple=8)), 8).stitch
    results = picture(4, 3, 32, 32, 9)
    out, _ = composite(results, stitch)
    assert torch.equal(out[3], torch.where(mask[1] == 1, results[3], image[1]))
    with pytest.raises(ValueError, match="image holds 3 images, but stitch belongs to 2 images"):
        composite(results[:3], stitch)


def test_results_of_another_size_are_resized():
    image, mask = torch.full((1, 3, 40, 56), 0.2), with_box(1, 40, 56, (8, 24, 8, 24))
    stitch = prepare(image, mask, Preparation(area=Area(multiple=16)), 8).stitch
    out, _ = composite(torch.full((1, 3, 96, 128), 0.7), stitch)
    assert torch.allclose(out, torch.where(mask == 1, 0.7, 0.2))


def test_outpainting_extends_the_picture():
    image = picture(1, 4, 30, 40)
    ready = prepare(image, None, Preparation(pads=(10, 0, 6, 4), area=Area(multiple=8)), 8)
    assert ready.stitch.image.shape == (1, 4, 34, 56) and ready.image.shape == (1, 3, 40, 56)
    repainted = picture(1, 3, 40, 56, 3)
    out, share = composite(repainted, ready.stitch)
    assert torch.equal(out[:, :, :30, 10:50], image) and (out[:, 3, 30:] == 1).all()
    assert torch.equal(out[:, :3, 30:], repainted[:, :, 30:34]) and share[0, 0, :30, 10:50].sum() == 0
    assert (ready.mask[0, 0, 34:] == 1).all(), "nothing is known below the new area"


def test_rows_added_for_the_multiple_mirror_the_picture_but_not_the_hole():
    image, mask = picture(1, 3, 20, 20), with_box(1, 20, 20, (10, 20, 0, 8))
    ready = prepare(image, mask, Preparation("original", area=Area(multiple=16)), 4)
    assert ready.mask[0, 0, 20:, :8].min() == 1 and ready.mask[0, 0, :, 8:].max() == 0
    assert torch.equal(ready.image[..., 20:24, :20], image[..., 16:, :].flip(-2))


def test_grey_masks_stay_grey_unless_told():
    image, mask = picture(1, 3, 32, 32), with_box(1, 32, 32, (8, 16, 8, 16)) * 0.4
    assert torch.equal(prepare(image, mask, Preparation()).mask.unique(), torch.tensor([0, 0.4]))
    assert set(prepare(image, mask, Preparation(threshold=0.3)).mask.unique().tolist()) == {0.0, 1.0}


def test_inverting_and_holes_leave_the_pads_alone():
    image, mask = picture(1, 3, 32, 32), 1 - with_box(1, 32, 32, (8, 16, 8, 16))
    ready = prepare(image, mask, Preparation(invert=True, fill_holes=True, pads=(4, 4, 4, 4), area=Area(multiple=8)), 1)
    assert ready.stitch.mask[0, 0, 4:36, 4:36].sum() == 64 and ready.stitch.mask.sum() == 64 + 40 * 40 - 32 * 32


def test_a_circled_object_is_enough():
    image, ring = picture(1, 3, 32, 32), with_box(1, 32, 32, (8, 24, 8, 24)) - with_box(1, 32, 32, (10, 22, 10, 22))
    assert prepare(image, ring, Preparation(fill_holes=True), 1).stitch.mask.sum() == 16 * 16
    assert prepare(image, ring, Preparation(), 1).stitch.mask.sum() == 16 * 16 - 12 * 12


def test_nonfinite_pixels_outside_the_hole_are_ignored():
    image, mask = picture(1, 3, 32, 32), with_box(1, 32, 32, (8, 24, 8, 24))
    result = torch.where(mask == 1, 0.5, float("nan")).expand(1, 3, 32, 32)
    out, _ = composite(result, whole_image(image, mask))
    assert torch.equal(out, torch.where(mask == 1, 0.5, image))


def test_context_mask_widens_the_crop():
    image, mask = picture(1, 3, 100, 100), with_box(1, 100, 100, (40, 50, 40, 50))
    how = Preparation(area=Area(True, 1.0, 0, multiple=2))
    ready = prepare(image, mask, how, 1, context=with_box(1, 100, 100, (40, 50, 80, 90)))
    assert ready.stitch.crop.box == (10, 50) and ready.mask.sum() == 100


def test_frames_of_a_video():
    """Seven frames in latent frames of 1, 4 and 4: two are added and dropped again, and all have the same crop."""
    frames, mask = picture(7, 3, 64, 64), torch.zeros(7, 1, 64, 64)
    for i, one in enumerate(mask):
        one[:, 10:20, 4 * i : 4 * i + 8] = 1
    ready = prepare(frames, mask, Preparation("original", area=Area(True, 1.0, 0, multiple=8)), 8, (0, 1, 5, 9))
    assert ready.image.shape[0] == ready.mask.shape[0] == 9 and len(set(ready.stitch.crop.corners)) == 1
    assert torch.equal(ready.image[8], ready.image[6]) and torch.equal(ready.mask[1], ready.mask[4])
    out, _ = composite(ready.image, ready.stitch)
    assert len(out) == 7 and torch.allclose(out, frames, atol=1e-7)
    assert len(composite(ready.image.repeat(2, 1, 1, 1), ready.stitch)[0]) == 14
    with pytest.raises(ValueError, match="image holds 7 images, but stitch belongs to 9 frames"):
        composite(ready.image[:7], ready.stitch)


def test_without_a_stitch():
    image, mask = picture(2, 3, 30, 40), with_box(2, 30, 40, (5, 15, 5, 15))
    result = picture(2, 3, 30, 40, 4)
    out, _ = composite(result, whole_image(image, mask))
    assert torch.equal(out, torch.where(mask == 1, result, image))


def test_values_keep_their_precision():
    image = picture(1, 3, 16, 16).double()
    out, _ = composite(picture(1, 3, 16, 16), whole_image(image, with_box(1, 16, 16, (0, 4, 0, 4))))
    assert out.dtype == torch.float64 and torch.equal(out[..., 8:, :], image[..., 8:, :])
