"""Reading and writing files: modes, orientation, sizes, messages."""

import numpy as np
import pytest
import torch
from PIL import Image

from gradpaint.image.files import load_image, load_mask, save_image, save_mask, to_uint8

RGB = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(tmp_path, pixels, name="a.png", mode=None, **options):
    path = tmp_path / name
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def test_eight_bit_round_trip_is_exact(tmp_path):
    image = load_image(save(tmp_path, RGB))
    assert image.shape == (1, 3, 5, 7) and image.dtype == torch.float32
    assert image.min() >= -1 and image.max() <= 1
    assert np.array_equal(to_uint8(image), RGB)
    assert np.array_equal(np.asarray(Image.open(save_image(image, tmp_path / "new" / "b.png"))), RGB)


def test_every_8_bit_value_survives():
    values = torch.arange(256, dtype=torch.float32).reshape(1, 16, 16) / 255 * 2 - 1
    assert to_uint8(values)[..., 0].ravel().tolist() == list(range(256))


def test_grayscale_is_repeated(tmp_path):
    image = load_image(save(tmp_path, RGB[..., 0]))
    assert torch.equal(image[:, 0], image[:, 2])
    assert np.array_equal(to_uint8(image)[..., 1], RGB[..., 0])


def test_sixteen_bit_grayscale_keeps_its_precision(tmp_path):
    pixels = np.array([[0, 1, 32768], [65534, 65535, 257]], dtype=np.uint16)
    image = load_image(save(tmp_path, Image.fromarray(pixels)))
    assert torch.allclose(image[0, 0], torch.from_numpy(pixels / 65535 * 2 - 1).float(), atol=1e-6)
    assert image[0, 0, 0, 1] > image[0, 0, 0, 0]
    mask = load_mask(tmp_path / "a.png")
    assert mask[0, 0, 0, 2].item() == pytest.approx(32768 / 65535, abs=1e-5)


def test_transparent_areas_become_white(tmp_path):
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[2, 3, 3] = 0
    expected = RGB.copy()
    expected[2, 3] = 255
    assert np.array_equal(to_uint8(load_image(save(tmp_path, rgba))), expected)


@pytest.mark.parametrize("mode", ["P", "1", "L", "LA", "CMYK"])
def test_other_modes_are_read_as_pillow_shows_them(tmp_path, mode):
    path = save(tmp_path, RGB, "a.tif" if mode == "CMYK" else "a.png", mode)
    assert np.array_equal(to_uint8(load_image(path)), np.asarray(Image.open(path).convert("RGB")))


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    path = save(tmp_path, RGB, exif=exif)
    assert np.array_equal(to_uint8(load_image(path)), np.rot90(RGB, -1))
    assert load_mask(path).shape == (1, 1, 7, 5)


def test_mask(tmp_path):
    gray = np.array([[0, 255, 3], [252, 128, 0]], dtype=np.uint8)
    path = save(tmp_path, gray)
    mask = load_mask(path, size=(2, 3))
    assert torch.allclose(mask, torch.tensor([[[[0, 1, 0], [1, 128 / 255, 0]]]]))
    assert torch.allclose(load_mask(path, invert=True), 1 - mask)


def test_colour_mask_is_weighted_by_luma_and_transparent_is_known(tmp_path):
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, 0] = 255, 255, 255, 255
    rgba[0, 1] = 0, 255, 0, 255
    rgba[0, 2] = 255, 255, 255, 0
    assert load_mask(save(tmp_path, rgba))[0, 0, 0].tolist() == pytest.approx([1, 0.587, 0], abs=1e-6)


def test_jpeg_mask_is_binary(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    assert set(load_mask(save(tmp_path, mask, "m.jpg", quality=95)).unique().tolist()) <= {0.0, 1.0}


def test_mask_round_trip(tmp_path):
    mask = torch.tensor([[[[0.0, 1.0], [1.0, 128 / 255]]]])
    assert torch.allclose(load_mask(save_mask(mask, tmp_path / "m.png")), mask, atol=1e-6)


def test_messages(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such image: .*missing.png"):
        load_image(tmp_path / "missing.png")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(ValueError, match="text.png is not a readable image"):
        load_image(text)
    noise = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cut = save(tmp_path, noise, "cut.png")
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cut.png cannot be read"):
        load_image(cut)
    floats = save(tmp_path, Image.fromarray(np.ones((2, 2), np.float32)), "f.tif")
    with pytest.raises(ValueError, match="f.tif holds floating-point pixels"):
        load_image(floats)
    with pytest.raises(ValueError, match="result.jpg does not end in .png"):
        save_image(torch.zeros(3, 2, 2), tmp_path / "result.jpg")
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\)"):
        to_uint8(torch.zeros(2, 3, 4, 4))


def test_mask_of_the_wrong_size_names_both(tmp_path):
    with pytest.raises(ValueError, match="is 7x5 pixels, but the image is 64x32"):
        load_mask(save(tmp_path, RGB), size=(32, 64))


def test_empty_and_full_masks(tmp_path):
    black, white = save(tmp_path, RGB[..., 0] * 0, "b.png"), save(tmp_path, RGB[..., 0] * 0 + 255, "w.png")
    for path, invert, message in [
        (black, False, "nothing to repaint.*--invert-mask"),
        (white, False, "covers the whole image.*--invert-mask"),
        (white, True, "nothing to repaint.*drop the inversion"),
        (black, True, "covers the whole image.*drop the inversion"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_mask(path, invert=invert)


def test_values_out_of_range_and_nan_are_saved_within_range():
    image = torch.tensor([[[-5.0, 5.0, float("nan")]]])
    assert to_uint8(image)[0, :, 0].tolist() == [0, 255, 0]
