"""GradPaint Composite in the real host: what it gives back, with a stitch and without."""

import logging

import pytest
import torch
import torch.nn.functional as F
from encoding import as_the_host_fits_it, box, picture


def test_masks_of_a_batch(encode, composite):
    images = picture(3, 32, 32)
    masks = torch.cat([box(32, 32, 0, 9, 0, 9), torch.zeros(1, 32, 32), box(32, 32, 20, 30, 20, 30)])
    latent, stitch, shown, sampled = encode(image=images, mask=masks)
    assert latent["samples"].shape[0] == 3 and as_the_host_fits_it(latent)[:, 0].sum((1, 2)).tolist() == [4, 0, 4]
    out, share = composite(1 - shown, stitch, blend=0, colour_match="off")
    assert torch.equal(share, masks) and torch.equal(out[masks == 0], images[masks == 0])
    assert torch.equal(out[masks == 1], (1 - shown)[masks == 1])
    one, stitch, shown, _ = encode(image=images[:1], mask=masks)  # one picture, three masks
    assert one["samples"].shape[0] == len(shown) == 3 and len(stitch.image) == 3
    with pytest.raises(ValueError, match="mask is a batch of 2, but there are 3 images"):
        encode(image=images, mask=masks[:2])


def test_grey_images_of_one_channel(encode, composite):
    image, mask = picture(1, 32, 48, 1), box(32, 48, 8, 16, 8, 16)
    _, stitch, shown, _ = encode(image=image, mask=mask)
    out, share = composite(shown[..., :1], stitch)
    assert out.shape == (1, 32, 48, 3) and torch.equal(out[share == 0], image.expand(-1, -1, -1, 3)[share == 0])


def test_what_is_not_finite_is_said(encode, composite, caplog):
    image, mask = picture(3, 32, 32), box(32, 32, 8, 16, 8, 16)
    _, stitch, shown, _ = encode(image=image, mask=mask)
    shown = shown.clone()
    shown[1, 10, 10] = float("nan")
    with caplog.at_level(logging.WARNING):
        out, _ = composite(shown, stitch)
    assert "NaN or infinite: the model or the VAE overflowed" in caplog.text
    assert (~out.isfinite()).nonzero().tolist() == [[1, 10, 10, channel] for channel in range(3)]
    image[2, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"image 2 of 3 \(counted from 0\) has 1 values that are NaN or infinite"):
        encode(image=image, mask=mask)


def test_repeated_latents_belong_to_one_stitch(comfy_host, encode, composite):
    images, masks = picture(2, 32, 32), torch.cat([box(32, 32, 0, 8, 0, 8), box(32, 32, 16, 32, 16, 32)])
    latent, stitch, shown, _ = encode(image=images, mask=masks)
    (latent,) = comfy_host.RepeatLatentBatch().repeat(latent, 2)
    assert as_the_host_fits_it(latent)[:, 0].sum((1, 2)).tolist() == [1, 4, 1, 4]
    out, share = composite(shown.repeat(2, 1, 1, 1), stitch, blend=0)
    assert torch.equal(share, masks.repeat(2, 1, 1)) and len(out) == 4


def test_composite_without_a_stitch(composite):
    image, result, mask = picture(2, 30, 40), picture(2, 30, 40, seed=1), box(30, 40, 5, 15, 5, 15)
    out, share = composite(result, original=image, mask=mask, blend=0, colour_match="off")
    assert torch.equal(out, torch.where(mask[..., None] == 1, result, image))
    assert torch.equal(share, mask.repeat(2, 1, 1))
    masks = torch.cat([mask, box(30, 40, 0, 9, 0, 9)])  # one picture, two masks
    assert torch.equal(composite(result, original=image[:1], mask=masks, blend=0)[1], masks)
    out, _ = composite(F.interpolate(result.movedim(-1, 1), (60, 80)).movedim(1, -1), original=image, mask=mask)
    assert out.shape == image.shape
    with pytest.raises(ValueError, match="connect both original and mask"):
        composite(result, original=image)
    with pytest.raises(ValueError, match="disconnect them, or the stitch"):
        composite(result, object(), mask=mask)
