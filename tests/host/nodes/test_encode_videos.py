"""GradPaint Inpaint Encode and GradPaint Composite with a video VAE: frames, masks for each, single pictures."""

import logging

import pytest
import torch
from encoding import as_the_host_fits_it, box, picture
from running import run


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
