"""GradPaint Inpaint Encode and GradPaint Composite in the real host: real VAE classes, its own fitting of masks."""

import logging

import pytest
import torch
import torch.nn.functional as F
from running import run


def picture(batch, height, width, channels=3, seed=0):
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def box(height, width, top, bottom, left, right, value=1.0):
    mask = torch.zeros(1, height, width)
    mask[:, top:bottom, left:right] = value
    return mask


def built(network, metadata=None):
    """The host's VAE around the state dict of a small network with random weights."""
    from comfy.sd import VAE

    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(p.shape, generator=generator) * 0.05 for name, p in network.state_dict().items()}
    return VAE(sd=state, metadata=metadata)


@pytest.fixture(scope="module")
def vaes(comfy_host):
    from comfy.ldm.wan.vae import WanVAE
    from comfy.sd import VAE
    from comfy.taesd import taesd
    from comfy.taesd.taesd import TAESD

    with torch.inference_mode():
        wan = WanVAE(
            dim=8,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            dropout=0.0,
        )
        made = {
            "pixel_space": VAE(sd={"pixel_space_vae": torch.tensor(1.0)}),
            "taesd": built(TAESD()),
            "wan": built(wan),
        }
        if hasattr(taesd, "EncoderFlux2"):  # not in the oldest hosts
            made["taef2"] = built(TAESD(latent_channels=128), {"tae_latent_channels": 128})
        return made


@pytest.fixture
def encode(pack_nodes, vaes):
    def make(vae="taesd", **inputs):
        with torch.inference_mode():
            return run(pack_nodes["GradPaintEncode"], vae=vaes[vae], **inputs)

    return make


@pytest.fixture
def composite(pack_nodes):
    def make(image, stitch=None, **inputs):
        with torch.inference_mode():
            return run(pack_nodes["GradPaintComposite"], image=image, stitch=stitch, **inputs)

    return make


def as_the_host_fits_it(latent):
    import comfy.sampler_helpers

    return comfy.sampler_helpers.prepare_mask(latent["noise_mask"], latent["samples"].shape, "cpu")


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


def test_outpainting_needs_no_mask(encode, composite):
    image = picture(1, 40, 56, 4)
    latent, stitch, shown, sampled = encode(image=image, pad_left=16, pad_bottom=10)
    assert shown.shape == (1, 64, 80, 3) and latent["samples"].shape == (1, 4, 8, 10)
    assert torch.equal(shown[:, :40, 16:72], image[..., :3])
    out, _ = composite(torch.zeros_like(shown), stitch, blend=0, colour_match="off")
    assert out.shape == (1, 50, 72, 4) and torch.equal(out[:, :40, 16:], image) and out[:, 41:, :, :3].max() == 0
    encode(image=image, mask=torch.zeros(1, 64, 64), pad_top=8)  # Load Image's empty mask is no obstacle


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


# ---- videos


@pytest.mark.parametrize("count, latent_frames", [(1, 1), (5, 2), (7, 3)])
def test_frames_of_a_video(encode, composite, vaes, count, latent_frames):
    """One mask a frame; latent frames take the highest of theirs; frames that the VAE would drop come back."""
    frames, masks = picture(count, 32, 48), torch.zeros(count, 32, 48)
    masks[0, :8, :8] = 1
    masks[-1, 16:24, 24:32] = 0.5
    latent, stitch, _, _ = encode("wan", image=frames, mask=masks)
    assert latent["samples"].shape == (1, 16, latent_frames, 4, 6)
    assert latent["noise_mask"].shape[:3] == (1, 1, latent_frames)
    fitted = as_the_host_fits_it(latent)
    assert fitted.shape == latent["samples"].shape
    expected = torch.zeros(latent_frames, 4, 6)
    expected[0, 0, 0] = 1
    expected[-1, 2, 3] = 0.5
    assert all(torch.equal(one, expected) for one in fitted[0])
    with torch.inference_mode():
        decoded = vaes["wan"].decode(latent["samples"])[0]
    out, _ = composite(decoded, stitch, blend=0)
    assert out.shape == frames.shape and torch.equal(out[masks == 0], frames[masks == 0])


def test_one_mask_for_a_video(encode, caplog):
    with caplog.at_level(logging.INFO):
        latent, _, _, sampled = encode("wan", image=picture(5, 32, 32), mask=box(32, 32, 0, 8, 0, 8))
    assert "encoding 5 images as the frames of one video" in caplog.text
    assert as_the_host_fits_it(latent)[0, 3].sum((1, 2)).tolist() == [1, 1] and len(sampled) == 5


def test_pictures_with_a_video_vae(encode, composite):
    """Qwen-Image: each picture its own latent of one frame, with its own mask."""
    images, masks = picture(2, 32, 32), torch.cat([box(32, 32, 0, 8, 0, 8), box(32, 32, 16, 32, 16, 32)])
    latent, stitch, shown, _ = encode("wan", image=images, mask=masks, video=False)
    assert latent["samples"].shape == (2, 16, 1, 4, 4)
    assert as_the_host_fits_it(latent)[:, 0, 0].sum((1, 2)).tolist() == [1, 4]
    assert composite(shown, stitch)[0].shape == images.shape
    one, stitch, shown, _ = encode("wan", image=images[:1], mask=masks)  # one picture with two masks is no video
    assert torch.equal(one["noise_mask"], latent["noise_mask"]) and one["samples"].shape == (2, 16, 1, 4, 4)
    assert composite(shown, stitch)[0].shape == images.shape


def test_sound_is_refused(pack_nodes, vaes):
    import types

    sound = types.SimpleNamespace(latent_dim=1, extra_1d_channel=None)
    with pytest.raises(ValueError, match="vae is for audio"):
        run(pack_nodes["GradPaintEncode"], vae=sound, image=picture(1, 8, 8), mask=torch.ones(1, 8, 8))
    with pytest.raises(ValueError, match="vae is empty"):
        run(pack_nodes["GradPaintEncode"], vae=None, image=picture(1, 8, 8), mask=torch.ones(1, 8, 8))


# ---- the whole chain


@pytest.fixture(scope="module")
def bundled(pack_nodes):
    """(MODEL, positive, negative)."""
    loader = pack_nodes["GradPaintLoadGuidedDiffusion"]
    name = next(item for item in loader.GET_SCHEMA().inputs if item.id == "ckpt_name").options[0]
    with torch.inference_mode():
        return run(loader, ckpt_name=name)


def test_a_batch_through_the_sampler(pack_nodes, vaes, encode, composite, bundled):
    """Hard, empty and soft masks side by side, the soft one for Differential Diffusion."""
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    model, positive, negative = bundled
    images = run(pack_nodes["GradPaintDemoScene"], seed=1, batch_size=2)[0].repeat(2, 1, 1, 1)[:3]
    masks = torch.cat([box(64, 64, 10, 30, 10, 30), torch.zeros(1, 64, 64), box(64, 64, 30, 50, 20, 50)])
    latent, stitch, shown, sampled = encode("pixel_space", image=images, mask=masks, feather=6)
    assert ((sampled > 0) & (sampled < 1)).any((1, 2)).tolist() == [True, False, True]
    with torch.inference_mode():
        out, _ = run(
            pack_nodes["GradPaintKSampler"],
            model=DifferentialDiffusion.execute(model, 1.0).args[0],
            seed=0,
            steps=4,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image=latent,
        )
        decoded = vaes["pixel_space"].decode(out["samples"])
    result, share = composite(decoded, stitch)
    assert torch.equal(result[1], images[1]) and share[1].max() == 0
    assert torch.equal(result[share == 0], images[share == 0]) and result.isfinite().all()
    assert all((result[i] - images[i])[masks[i] == 1].abs().mean() > 0.01 for i in (0, 2))


@pytest.mark.parametrize("inputs", [{}, {"area": "around the mask", "target_size": 64, "square": True, "grow": 2}])
def test_the_whole_chain_on_the_bundled_model(pack_nodes, vaes, encode, composite, bundled, inputs):
    """A 96 x 50 picture through encode, sampler, decode and composite: the same size, the known part bit for bit."""
    model, positive, negative = bundled
    with torch.inference_mode():
        image = F.interpolate(run(pack_nodes["GradPaintDemoScene"], seed=1)[0].movedim(-1, 1), (50, 96)).movedim(1, -1)
        mask = box(50, 96, 15, 40, 30, 60)
        latent, stitch, shown, _ = encode("pixel_space", image=image, mask=mask, **inputs)
        out, record = run(
            pack_nodes["GradPaintKSampler"],
            model=model,
            seed=0,
            steps=6,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image=latent,
        )
        decoded = vaes["pixel_space"].decode(out["samples"])
    assert decoded.shape == shown.shape and record.guided
    result, share = composite(decoded, stitch)
    assert result.shape == image.shape and result.dtype == image.dtype
    assert torch.equal(result[share == 0], image[share == 0]) and 0.3 < (share == 0).float().mean() < 0.9
    hole = mask == 1
    assert (share[hole] == 1).all() and (result[hole] - image[hole]).abs().mean() > 0.01
    assert 0 <= result.min() and result.max() <= 1 and result.isfinite().all()
