"""Conversions to and from the host: ranges, layouts, and errors that name the shapes."""

import pytest
import torch


@pytest.fixture(scope="module")
def convert(pack):
    return pack.nodes.host.latents.convert


def test_image_there_and_back(convert):
    image = torch.rand(2, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    x = convert.image_to_tensor(image)
    assert x.shape == (2, 3, 5, 7)
    assert torch.equal(x[1, 2], image[1, :, :, 2] * 2 - 1)
    assert torch.allclose(convert.tensor_to_image(x), image, atol=1e-6)


def test_image_values_are_exact_at_the_ends_and_clipped_beyond(convert):
    assert convert.image_to_tensor(torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)).flatten().tolist() == [-1, 0, 1]
    assert convert.tensor_to_image(torch.tensor([-1.5, 0.0, 3.0]).reshape(1, 3, 1, 1)).flatten().tolist() == [0, 0.5, 1]


def test_alpha_is_dropped(convert):
    assert convert.image_to_tensor(torch.ones(1, 2, 2, 4)).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 4, 4, 2), (1, 3, 5, 5)])
def test_image_of_wrong_shape_is_named(convert, shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        convert.image_to_tensor(torch.zeros(shape))


@pytest.mark.parametrize(
    "shape, expected", [((4, 6), (1, 1, 4, 6)), ((3, 4, 6), (3, 1, 4, 6)), ((3, 1, 4, 6), (3, 1, 4, 6))]
)
def test_masks_as_the_host_reads_them(convert, shape, expected):
    mask = torch.rand(shape)
    assert convert.mask_to_tensor(mask).shape == expected
    assert torch.equal(convert.tensor_to_mask(convert.mask_to_tensor(mask)).flatten(), mask.flatten())


def test_masked_latent_is_what_set_latent_noise_mask_makes(comfy_host, convert):
    latent, mask = {"samples": torch.zeros(1, 4, 8, 8), "batch_index": [3]}, torch.ones(1, 64, 64)
    (expected,) = comfy_host.SetLatentNoiseMask().set_mask(latent, mask)
    made = convert.masked_latent(latent, mask)
    assert made.keys() == expected.keys() and made["samples"] is latent["samples"]
    assert torch.equal(made["noise_mask"], expected["noise_mask"])


def test_masked_latent_keeps_a_video_mask(convert):
    mask = torch.ones(1, 1, 3, 8, 8)
    assert convert.masked_latent({"samples": torch.zeros(1, 16, 3, 8, 8), "noise_mask": mask})["noise_mask"] is mask


def test_gray_masks_count_as_something_to_repaint(convert):
    mask = torch.zeros(1, 8, 8)
    mask[0, 0, 0] = 0.01
    assert "noise_mask" in convert.masked_latent({"samples": torch.zeros(1, 3, 8, 8)}, mask)


def test_size_of(convert):
    assert convert.size_of(torch.zeros(1, 5, 7, 3)) == (5, 7)
    assert convert.size_of({"samples": torch.zeros(1, 4, 5, 7)}) == (5, 7)
    with pytest.raises(ValueError, match=r"size_from is \(5, 7\)"):
        convert.size_of(torch.zeros(5, 7))
