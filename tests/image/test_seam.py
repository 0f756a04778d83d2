"""border_contrast is 1 where the border is like its surroundings, whatever they look like."""

import pytest
import torch

from gradpaint.image.seam import border_contrast


def hole(height=32, width=32):
    mask = torch.zeros(1, 1, height, width)
    mask[..., 8:20, 10:22] = 1
    return mask


def test_texture_that_runs_on_is_no_seam():
    image = torch.randn(4, 3, 256, 256, generator=torch.manual_seed(0))
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 40:200, 60:180] = 1
    assert torch.allclose(border_contrast(image, mask), torch.ones(4).double(), atol=0.15)


def test_a_ramp_is_exactly_one_and_a_step_on_it_is_known_by_hand():
    ramp = (torch.arange(32.0) / 100).expand(1, 1, 32, 32)
    vertical = torch.zeros(1, 1, 32, 32)
    vertical[..., 16:] = 1
    assert border_contrast(ramp, vertical).item() == pytest.approx(1, rel=1e-4)
    stepped = ramp + 0.03 * vertical  # a step of 0.04 across the border, next to steps of 0.01
    assert border_contrast(stepped, vertical).item() == pytest.approx(16, rel=1e-3)


def test_flat_image_without_a_step_is_one_and_each_image_has_its_own():
    images = torch.zeros(2, 3, 32, 32)
    images[1] += hole()[0] * 0.5
    flat, seen = border_contrast(images, hole())
    assert flat.item() == 1 and seen.item() > 1e4


def test_no_border_is_nan():
    assert border_contrast(torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)).isnan().all()


def test_single_pixels_are_not_compared_with_their_own_borders():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10, 10] = 1
    assert border_contrast(torch.rand(1, 3, 32, 32), mask).isnan().all()


def test_videos_and_a_mask_per_image():
    video = torch.rand(2, 4, 3, 16, 16, generator=torch.manual_seed(1))
    mask = torch.zeros(2, 1, 3, 16, 16)
    mask[..., 4:12, 4:12] = 1
    together = border_contrast(video, mask)
    frames = [border_contrast(video[:1, :, t], mask[:1, :, t]) for t in range(3)]
    assert together.shape == (2,) and min(frames) <= together[0] <= max(frames)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(1, 1, 32, 32\).*\(2, 3, 16, 16\)"):
        border_contrast(torch.rand(2, 3, 16, 16), hole())
