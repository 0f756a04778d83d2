"""Images and masks by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from gradpaint.evaluation.dataset import Cases, fitted, stream_seed
from gradpaint.image.files import save_image, save_mask
from gradpaint.masks import make_mask
from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes


def picture(path, height=20, width=30, value=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), round(value * 255), dtype=np.uint8)).save(path)


def test_scenes():
    cases = Cases("scenes", (16, 16), 3)
    assert cases.names == [f"scene_{seed}" for seed in HELD_OUT_SEEDS[:3]]
    assert torch.equal(cases.images(cases.names[1:]), landscapes(HELD_OUT_SEEDS[1:3], 16))
    with pytest.raises(ValueError, match="scenes are square"):
        Cases("scenes", (16, 24), 3)


def test_folder_is_sorted_named_and_fitted(tmp_path):
    for name, value in (("b.png", 0.0), ("a.JPG", 1.0), ("sub/a.webp", 0.5)):
        picture(tmp_path / name, value=value)
    (tmp_path / "notes.txt").write_text("no image")
    cases = Cases(tmp_path, (8, 16))
    assert cases.names == ["a", "b", "sub__a"]
    images = cases.images(cases.names)
    assert images.shape == (3, 3, 8, 16)
    assert images.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1.0, -1.0, 0.0], abs=0.01)
    assert Cases(tmp_path, (8, 8), 2).names == ["a", "b"]
    with pytest.raises(ValueError, match="number of images is 4, but .* has 3 images"):
        Cases(tmp_path, (8, 8), 4)
    with pytest.raises(ValueError, match="is not a folder"):
        Cases(tmp_path / "none", (8, 8))
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="two images of one name"):
        Cases(tmp_path, (8, 8))


def test_fitted_takes_the_middle_and_keeps_a_picture_of_the_right_size():
    image = landscapes([1], 16)
    assert torch.equal(fitted(image, (16, 16)), image[0])
    wide = torch.cat([torch.full((1, 3, 16, 8), -1.0), image, torch.full((1, 3, 16, 8), 1.0)], dim=3)
    assert torch.equal(fitted(wide, (16, 16)), image[0])
    small = fitted(wide, (8, 8))
    assert small.shape == (3, 8, 8)
    grid = (small + 1) * 127.5
    assert torch.allclose(grid, grid.round(), atol=1e-4)


def test_masks_depend_on_the_name_and_the_seed_alone():
    few, more = Cases("scenes", (32, 32), 2), Cases("scenes", (32, 32), 6)
    masks = more.masks(more.names)
    assert torch.equal(few.masks(few.names), masks[:2])
    assert torch.equal(more.masks(more.names[3:4]), masks[3:4])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(Cases("scenes", (32, 32), 2, mask_seed=1).masks(few.names), masks[:2])
    assert all(0.01 <= mask.mean() <= 0.5 for mask in masks)


def test_mask_options():
    cases = Cases("scenes", (16, 16), 2, "coverage", {"coverage": 0.25})
    assert cases.masks(cases.names).mean().item() == pytest.approx(0.25, abs=0.01)
    with pytest.raises(ValueError, match="'coverage' is unknown for a thick mask"):
        Cases("scenes", (16, 16), 2, "thick", {"coverage": 0.25})


def test_masks_from_files(tmp_path):
    names = Cases("scenes", (16, 16), 3).names
    for index, name in enumerate(names[:2]):
        save_mask(make_mask("box", 16, 16, index, position="random"), tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=f"folder of masks, lacks 1 of 3 images: {names[2]}"):
        Cases("scenes", (16, 16), 3, mask_folder=tmp_path)
    cases = Cases("scenes", (16, 16), 2, mask_folder=tmp_path)
    assert torch.equal(cases.masks(names[1:2]), make_mask("box", 16, 16, 1, position="random"))
    save_image(torch.zeros(3, 8, 8), tmp_path / f"{names[0]}.png")
    with pytest.raises(ValueError, match="8x8 pixels, but the image is 16x16"):
        cases.masks(names[:1])


def test_stream_seeds_differ():
    seeds = {stream_seed(*parts) for parts in [(0, "a"), (0, "b"), (1, "a"), (0, "a", "steps"), (0,)]}
    assert len(seeds) == 5 and all(0 <= seed < 2**32 for seed in seeds)
    assert stream_seed(0, "a") == stream_seed(0, "a")


def test_errors():
    with pytest.raises(ValueError, match="number of images is 0"):
        Cases("scenes", (16, 16), 0)
