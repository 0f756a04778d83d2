"""Boxes contain the hole, stay inside the image, and are encoded at multiples."""

import itertools

import pytest
import torch

from gradpaint.image.crop import Area, cut, find_crop, pad_mirrored, pad_repeated, resize, resize_mask


def holes(height, width, *boxes):
    mask = torch.zeros(len(boxes), 1, height, width)
    for one, box in zip(mask, boxes):
        if box:
            one[0, box[0] : box[1], box[2] : box[3]] = 1
    return mask


def test_the_whole_image():
    crop = find_crop(holes(50, 96, (0, 5, 0, 5)), Area(multiple=16))
    assert crop == (((0, 0),), (50, 96), (50, 96), (64, 96))


def test_the_whole_image_at_the_models_size():
    crop = find_crop(holes(1500, 1000, (0, 5, 0, 5)), Area(size=512, multiple=16))
    assert crop.box == (1500, 1000) and crop.encoded == crop.content == (624, 416)


def test_coarse_multiples_are_rounded_to_not_padded_to():
    crop = find_crop(holes(100, 150, (30, 70, 50, 90)), Area(True, 1.5, 32, True, size=64, multiple=64))
    assert crop.box == (100, 104) and crop.encoded == (64, 64) and crop.content == (62, 64)


def test_around_a_hole_in_the_middle():
    crop = find_crop(holes(400, 400, (180, 220, 150, 250)), Area(True, 2.0, 10, multiple=8))
    assert crop.box == crop.content == crop.encoded == (80, 200) and crop.corners == ((160, 100),)


def test_boxes_move_inside_rather_than_being_padded():
    crop = find_crop(holes(200, 300, (0, 20, 280, 300)), Area(True, 1.5, 32, multiple=64))
    assert crop.box == crop.encoded == (128, 128) and crop.corners == ((0, 172),)


def test_a_margin_at_least_and_a_square():
    assert find_crop(holes(300, 300, (100, 110, 100, 140)), Area(True, 1.0, 20, multiple=1)).box == (50, 80)
    assert find_crop(holes(300, 300, (100, 110, 100, 140)), Area(True, 1.0, 20, True, multiple=1)).box == (80, 80)
    assert find_crop(holes(60, 300, (10, 20, 100, 140)), Area(True, 1.0, 20, True, multiple=1)).box == (60, 80)


def test_small_crops_are_enlarged_to_the_models_size():
    crop = find_crop(holes(500, 500, (200, 250, 200, 250)), Area(True, 1.5, 0, size=512, multiple=64))
    assert crop.box == (75, 75) and crop.encoded == (512, 512) and crop.content == (512, 512)


def test_pictures_of_a_batch_get_one_size_each_at_its_own_place():
    crop = find_crop(holes(200, 200, (0, 10, 0, 10), None, (100, 160, 150, 170)), Area(True, 1.0, 8, multiple=4))
    assert crop.box == (76, 36) and crop.corners == ((0, 0), (62, 82), (92, 142))


def test_an_empty_region_takes_the_whole_image():
    assert find_crop(holes(20, 30, None), Area(True, multiple=2)).box == (20, 30)


@pytest.mark.parametrize("seed", range(40))
def test_random_cases(seed):
    """The hole is inside the box, the box is inside the image, and sizes match, for random sizes, holes and areas."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    height, width = draw(37, 200), draw(37, 200)
    boxes = [
        sorted((draw(0, height - 1), draw(1, height))) + sorted((draw(0, width - 1), draw(1, width))) for _ in range(3)
    ]
    mask = holes(height, width, *boxes)
    area = Area(
        bool(draw(0, 3)),
        1 + draw(0, 20) / 10,
        draw(0, 40),
        bool(draw(0, 1)),
        draw(0, 1) * draw(30, 300),
        (1, 8, 16, 64)[draw(0, 3)],
    )
    crop = find_crop(mask, area)
    assert all(new % area.multiple == 0 and 0 < part <= new for part, new in zip(crop.content, crop.encoded))
    scale = [part / old for part, old in zip(crop.content, crop.box)]
    assert abs(scale[0] * crop.box[0] - scale[1] * crop.box[0]) <= 1 + crop.box[0] / crop.box[1], "not stretched"
    for one, (top, left) in zip(mask, crop.corners):
        assert 0 <= top <= height - crop.box[0] and 0 <= left <= width - crop.box[1]
        outside = one.clone()
        outside[:, top : top + crop.box[0], left : left + crop.box[1]] = 0
        assert not outside.any()
    assert cut(mask, crop).shape[-2:] == crop.box


def test_resizing():
    x = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    assert resize(x, (12, 20)) is x
    flat = torch.full((1, 3, 12, 20), 0.25)
    for size in itertools.product((5, 12, 31), (7, 44)):
        assert resize(x, size).shape[-2:] == size and torch.allclose(resize(flat, size), torch.tensor(0.25))


def test_masks_stay_black_and_white_and_lose_no_pixel():
    mask = torch.zeros(1, 1, 100, 100)
    mask[..., 37, 61] = 1
    for size in ((30, 30), (100, 33), (13, 250), (301, 301)):
        small = resize_mask(mask, size)
        assert small.shape[-2:] == size and set(small.unique().tolist()) == {0.0, 1.0}


def test_padding():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert pad_repeated(x, (3, 5))[0, 0].tolist() == [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5], [3, 4, 5, 5, 5]]
    assert pad_mirrored(x, (3, 5))[0, 0].tolist() == [[0, 1, 2, 2, 1], [3, 4, 5, 5, 4], [3, 4, 5, 5, 4]]
    assert pad_mirrored(x, (7, 3))[0, 0, :, 0].tolist() == [0, 3, 3, 0, 0, 3, 3]
    assert pad_mirrored(x, (2, 3)) is x
