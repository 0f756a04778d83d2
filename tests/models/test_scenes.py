import hashlib

import numpy as np
import pytest
import torch

from gradpaint.models import scenes
from gradpaint.models.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, landscape, landscapes

# SHA-256 of the pixels, computed by this generator after its scenes had been inspected. The bundled model was trained
# on them, so a change here is a change of its data.
GOLDEN = {
    (64, 24): "606be4bf15e9ba49bee35fa0a65236fc6561f330c058606f09285b36e4d86aec",
    (37, 3): "7bfd32b3bd7131858b79fcd56ca6c8a6c7f76e4f45444798ca572024dc1c1c3a",
}


@pytest.mark.parametrize("size, count", GOLDEN)
def test_pixels_are_the_same_on_every_machine(size, count):
    pixels = b"".join(landscape(seed, size).tobytes() for seed in range(count))
    assert hashlib.sha256(pixels).hexdigest() == GOLDEN[size, count]


def test_some_pixels_by_value():
    scene = landscape(3)
    assert scene[[0, 20, 40, 63], [0, 16, 40, 63]].tolist() == [
        [45, 123, 238],
        [115, 174, 247],
        [37, 136, 57],
        [171, 172, 52],
    ]


def test_a_scene_depends_on_its_seed_only():
    before = landscape(5)
    np.random.seed(1)
    torch.manual_seed(1)
    landscape(6)
    assert np.array_equal(landscape(5), before)
    assert np.array_equal(landscape(np.int64(5)), before)


@pytest.mark.parametrize("size", [8, 33, 96])
def test_shape_and_type(size):
    scene = landscape(0, size)
    assert scene.shape == (size, size, 3) and scene.dtype == np.uint8


@pytest.mark.parametrize("seed", range(6))
def test_a_larger_picture_shows_the_same_scene(seed):
    small = landscape(seed, 64).astype(float)
    large = landscape(seed, 256).astype(float).reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - large).mean() < 4.0  # of 255: the edges are sampled more finely


def test_batch():
    batch = landscapes([4, 9], 32)
    assert batch.shape == (2, 3, 32, 32) and batch.dtype == torch.float32 and batch.is_contiguous()
    assert -1.0 <= batch.min() and batch.max() <= 1.0
    restored = ((batch[1] + 1.0) * 127.5).round().byte().permute(1, 2, 0)
    assert np.array_equal(restored.numpy(), landscape(9, 32))


def test_scenes_differ_and_use_the_range():
    pictures = [landscape(seed) for seed in range(64)]
    assert len({picture.tobytes() for picture in pictures}) == 64
    stack = np.stack(pictures).astype(float) / 255.0
    assert stack.min() < 0.1 and stack.max() > 0.95
    assert stack.mean(axis=(1, 2, 3)).std() > 0.1  # day to night
    assert np.median(stack.std(axis=(1, 2, 3))) > 0.12  # contrast within a picture


def test_every_kind_of_foreground_and_light_occurs():
    draws = [scenes._Draws(seed) for seed in range(64)]
    kinds = {(d.choose(scenes._FOREGROUNDS), d.choose(tuple(scenes._MOODS))) for d in draws}
    assert kinds == {(f, m) for f in scenes._FOREGROUNDS for m in scenes._MOODS}


def test_water_mirrors_the_shore():
    picture = np.linspace(0.0, 1.0, 100)[:, None, None] * np.ones((100, 80, 3))  # the same in all columns
    above = picture.copy()
    water = np.array([0.1, 0.2, 0.9])
    first = scenes._Draws(11).uniform(0.06, 0.12)
    scenes._water(picture, {"water": water}, scenes._Draws(11), 0.5)
    shore = int((0.5 + first) * 100)
    assert np.array_equal(picture[:shore], above[:shore])
    for below in (0, 10, 30):
        tint = 0.25 + 0.6 * below / 100
        expected = (1 - tint) * above[shore - 1 - below] + tint * water
        assert np.allclose(picture[shore + below], expected, atol=1e-12)


def test_wave_is_nearly_a_sine_without_its_rounding():
    turns = np.linspace(-2.0, 3.0, 4001)
    assert np.abs(scenes._wave(turns) - np.sin(2 * np.pi * turns)).max() < 0.002
    assert scenes._wave(np.array([0.0, 0.25, 0.5, 0.75])).tolist() == [0.0, 1.0, 0.0, -1.0]


def test_training_and_held_out_seeds_are_apart():
    assert TRAIN_SEEDS[-1] < HELD_OUT_SEEDS[0]
    assert len(HELD_OUT_SEEDS) >= 10_000


@pytest.mark.parametrize("seed", [-1, 0.5, "a", True])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="seed is .*at least 0"):
        landscape(seed)


@pytest.mark.parametrize("size", [7, 5000, 64.0, False])
def test_bad_size(size):
    with pytest.raises(ValueError, match="size is .*8 to 4096"):
        landscape(0, size)


def test_no_seeds():
    with pytest.raises(ValueError, match="seeds is empty"):
        landscapes([])
