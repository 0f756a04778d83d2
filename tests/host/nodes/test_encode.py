"""GradPaint Inpaint Encode in the real host: real VAE classes, its own fitting of masks."""

import logging

import pytest
import torch
import torch.nn.functional as F
from encoding import as_the_host_fits_it, box, picture


@pytest.mark.parametrize(
    "vae, cell, multiple", [("pixel_space", 1, 64), ("taesd", 8, 16), ("taef2", 16, 16), ("wan", 8, 16)]
)
def test_the_hosts_mask_is_not_blurred(encode, vaes, vae, cell, multiple):
    """Every latent cell with any of its pixels in the mask is repainted, wholly, and no other."""
    if vae not in vaes:
        pytest.skip(f"this ComfyUI has no {vae}")
    mask = box(50, 96, 11, 29, 37, 60) + box(50, 96, 40, 41, 3, 4, 0.4)
    latent, _, shown, sampled = encode(vae, image=picture(1, 50, 96), mask=mask)
    height, width = -(-50 // multiple) * multiple, -(-96 // multiple) * multiple
    assert shown.shape == (1, height, width, 3) and sampled.shape == (1, height, width)
    assert latent["samples"].shape[-2:] == (height // cell, width // cell)
    expected = F.max_pool2d(F.pad(mask[:, None], (0, width - 96, 0, height - 50)), cell)
    fitted = as_the_host_fits_it(latent)
    assert fitted.shape == latent["samples"].shape
    assert all(torch.equal(one, expected[0, 0]) for one in fitted.flatten(0, -3))
    assert torch.equal(F.max_pool2d(sampled[:, None], cell), expected)


def test_sizes_are_whole_cells_whatever_is_asked_for(encode):
    for asked, size in ((1, (56, 96)), (12, (72, 96)), (32, (64, 96))):
        assert encode(image=picture(1, 50, 96), mask=box(50, 96, 0, 9, 0, 9), multiple=asked)[3].shape == (1, *size)


def test_what_is_encoded(encode, vaes):
    image, mask = picture(1, 64, 64), box(64, 64, 16, 32, 16, 32)
    latent, _, shown, _ = encode(image=image, mask=mask)
    with torch.inference_mode():
        assert torch.equal(latent["samples"], vaes["taesd"].encode(shown)) and not torch.equal(shown, image)
    assert torch.equal(shown[mask == 0], image[mask == 0])
    latent, _, shown, _ = encode(image=image, mask=mask, masked_content="original")
    assert torch.equal(shown, image)


def test_masks_of_other_sizes(encode, caplog):
    image = picture(1, 64, 96)
    with caplog.at_level(logging.INFO):
        _, stitch, _, _ = encode(image=image, mask=box(32, 48, 8, 16, 8, 16))
    assert torch.equal(stitch.mask[:, 0], box(64, 96, 16, 32, 16, 32))
    assert "mask is 48 x 32; scaling it to the image's 96 x 64" in caplog.text
    _, stitch, _, _ = encode(image=image, mask=box(128, 192, 16, 17, 16, 17))  # a single pixel is not lost
    assert stitch.mask.sum() == 1
    with pytest.raises(ValueError, match="mask is 64 x 64, but the image is 96 x 64, a different aspect ratio"):
        encode(image=image, mask=box(64, 64, 0, 8, 0, 8))


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "mask is not connected, and no pad is set"),
        ({"mask": torch.zeros(1, 64, 64)}, "black everywhere.*Load Image gives a black 64 x 64 mask"),
        ({"mask": torch.ones(1, 40, 72)}, "white everywhere.*flip invert_mask"),
        ({"mask": torch.zeros(1, 40, 72), "invert_mask": True}, "white everywhere"),
        ({"mask": torch.ones(1, 40, 72, 3)}, r"mask has shape \(1, 40, 72, 3\)"),
        ({"mask": torch.ones(1, 40, 72), "image": torch.zeros(1, 40, 72, 2)}, r"image has shape \(1, 40, 72, 2\)"),
    ],
)
def test_what_cannot_be_done_is_said(encode, inputs, message):
    with pytest.raises(ValueError, match=message):
        encode(**{"image": picture(1, 40, 72), **inputs})


def test_outpainting_needs_no_mask(encode, composite):
    image = picture(1, 40, 56, 4)
    latent, stitch, shown, sampled = encode(image=image, pad_left=16, pad_bottom=10)
    assert shown.shape == (1, 64, 80, 3) and latent["samples"].shape == (1, 4, 8, 10)
    assert torch.equal(shown[:, :40, 16:72], image[..., :3])
    out, _ = composite(torch.zeros_like(shown), stitch, blend=0, colour_match="off")
    assert out.shape == (1, 50, 72, 4) and torch.equal(out[:, :40, 16:], image) and out[:, 41:, :, :3].max() == 0
    encode(image=image, mask=torch.zeros(1, 64, 64), pad_top=8)  # Load Image's empty mask is no obstacle
