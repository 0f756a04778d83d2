"""The public functions: all kinds, the same mask for the same seed on every machine, errors."""

import hashlib

import numpy as np
import pytest
import torch

from gradpaint.masks import MASK_KINDS, make_mask, make_masks, mask_options, masks_above

# sha256 of np.packbits of the mask at (height, width), seed; first 16 digits. Must never change.
GOLDEN = {
    ("thin", 64, 64, 0): "025a403d23d4b15e",
    ("thin", 256, 256, 1): "200dca5bf52071e7",
    ("thin", 48, 80, 12345): "1846a5e9d17c0dad",
    ("thin", 512, 512, 2): "4b9c8bb5966cdf92",
    ("medium", 64, 64, 0): "e64e53c438cffa7a",
    ("medium", 256, 256, 1): "2086918f2d69a77b",
    ("medium", 48, 80, 12345): "1184d2160ebf1511",
    ("medium", 512, 512, 2): "07d02ef43934329f",
    ("thick", 64, 64, 0): "c8e5fc9cb2a327e7",
    ("thick", 256, 256, 1): "f4c30adcd0b2ab81",
    ("thick", 48, 80, 12345): "3f93bbf8c18dceef",
    ("thick", 512, 512, 2): "4e48ef7bd34e4f76",
    ("random_pixels", 64, 64, 0): "6693c73c823cdffb",
    ("random_pixels", 256, 256, 1): "11b331a4d0b54ef7",
    ("random_pixels", 48, 80, 12345): "79523ea796ae2a80",
    ("box", 64, 64, 0): "75e281813db9cc02",
    ("box", 256, 256, 1): "620a84f779504ef2",
    ("box", 48, 80, 12345): "ba0ec863361353a0",
    ("ellipse", 64, 64, 0): "081d854080ed58d1",
    ("ellipse", 256, 256, 1): "f2aea718895702c1",
    ("ellipse", 48, 80, 12345): "baca305b21c42037",
    ("half", 64, 64, 0): "929495fe2859759b",
    ("half", 256, 256, 1): "024804ef90622cd3",
    ("half", 48, 80, 12345): "01707b2cd5ff271e",
    ("outpaint", 64, 64, 0): "31f18f5f300b7e75",
    ("outpaint", 256, 256, 1): "0615c74b9328af30",
    ("outpaint", 48, 80, 12345): "dee40b1ec767821c",
    ("coverage", 64, 64, 0): "e64cbe3043fd3771",
    ("coverage", 256, 256, 1): "349ae3b54bcb5ef1",
    ("coverage", 48, 80, 12345): "93fe338571403d34",
}


def digest(mask):
    return hashlib.sha256(np.packbits(mask.numpy().astype(bool)).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("kind, height, width, seed", GOLDEN)
def test_golden(kind, height, width, seed):
    assert digest(make_mask(kind, height, width, seed)) == GOLDEN[kind, height, width, seed]


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("shape", [(64, 64), (8, 8), (17, 40), (128, 96)])
def test_shape_dtype_values(kind, shape):
    mask = make_mask(kind, *shape, seed=5)
    assert mask.shape == (1, 1, *shape)
    assert mask.dtype == torch.float32 and mask.is_contiguous()
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(mask, make_mask(kind, *shape, seed=5))


@pytest.mark.parametrize("kind", ["thin", "medium", "thick", "random_pixels", "coverage"])
def test_seeds_differ(kind):
    masks = make_masks(kind, 64, 64, range(4))
    assert masks.shape == (4, 1, 64, 64)
    assert torch.equal(masks[2:3], make_mask(kind, 64, 64, 2))
    assert len({digest(mask) for mask in masks}) == 4


def test_large_seed_and_numpy_integers():
    assert make_mask("thick", 64, 64, seed=2**64 - 1).sum() > 0
    assert torch.equal(make_mask("thick", np.int64(32), np.int32(32), np.int64(4)), make_mask("thick", 32, 32, 4))


def test_mask_options():
    assert mask_options("thick") == ()
    assert mask_options("random_pixels") == ("probability",)
    assert mask_options("outpaint") == ("left", "right", "top", "bottom")
    assert set(mask_options("coverage")) == {"coverage", "strokes"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("round", 64, 64), "kind is 'round'.*thin, medium, thick, random_pixels"),
        (("thick", 64.0, 64), "height is 64.0"),
        (("thick", 64, 0), "width is 0"),
        (("half", 1, 64), "height is 1"),
        (("half", 64, 64, -1), "seed is -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_mask(*arguments)


def test_unknown_option():
    with pytest.raises(ValueError, match="'coverage' is unknown for a thick mask; it takes none"):
        make_mask("thick", 64, 64, coverage=0.5)
    with pytest.raises(ValueError, match="'size' is unknown for a box mask; it takes coverage, position"):
        make_mask("box", 64, 64, size=3)


def test_no_seeds():
    with pytest.raises(ValueError, match="seeds is empty"):
        make_masks("thick", 64, 64, [])


def test_masks_above():
    masks = masks_above(0.1, "thick", 64, 64, 12, first_seed=5)
    accepted = [mask for mask in (make_mask("thick", 64, 64, seed) for seed in range(5, 40)) if mask.mean() >= 0.1]
    assert torch.equal(masks, torch.cat(accepted[:12]))
    assert len(accepted) < 35  # some were skipped
    with pytest.raises(ValueError, match="min_coverage is 0.9; none of 1000 thick masks at 8x8 reaches it"):
        masks_above(0.9, "thick", 8, 8, 1)
