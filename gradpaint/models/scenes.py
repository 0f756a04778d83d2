"""Procedural landscapes: the training and demonstration images of the bundled model.

A scene is a sky gradient with a sun or a moon, two to four layers of hills, and in front of them a striped field, a
dotted field or water that mirrors what stands above it. Lines and colours run across the whole picture, so a mask cuts
through structure that an inpainting has to continue.

The picture depends on the seed alone. Every pixel comes from a PCG64 stream through float64 additions, products,
quotients, square roots and floors, which IEEE 754 rounds the same on every machine; there is no `sin` or `exp`,
whose last bit differs between processors. Rendering is at `SUPERSAMPLE` times the size, then averaged down.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

TRAIN_SEEDS = range(0, 10_000_000)
"""Seeds that training may use; `training/train_demo.py` records the part of them it did use."""

HELD_OUT_SEEDS = range(10_000_000, 10_100_000)
"""Seeds that no training run may use: validation, evaluation and demonstration images."""

SUPERSAMPLE = 2

# One row a mood: colours as RGB in [0, 1].
_MOODS = {
    "day": dict(
        top=(0.16, 0.45, 0.88),
        low=(0.76, 0.90, 0.98),
        disc=(1.00, 0.96, 0.70),
        far=(0.46, 0.64, 0.80),
        near=(0.13, 0.48, 0.20),
        soil=(0.30, 0.58, 0.16),
        crop=(0.90, 0.82, 0.25),
        water=(0.10, 0.36, 0.60),
    ),
    "dusk": dict(
        top=(0.22, 0.14, 0.45),
        low=(1.00, 0.55, 0.25),
        disc=(1.00, 0.86, 0.45),
        far=(0.72, 0.36, 0.42),
        near=(0.24, 0.10, 0.26),
        soil=(0.34, 0.14, 0.24),
        crop=(0.88, 0.45, 0.26),
        water=(0.26, 0.14, 0.36),
    ),
    "dawn": dict(
        top=(0.40, 0.62, 0.80),
        low=(1.00, 0.80, 0.76),
        disc=(1.00, 0.95, 0.88),
        far=(0.74, 0.66, 0.80),
        near=(0.20, 0.42, 0.46),
        soil=(0.40, 0.30, 0.52),
        crop=(0.84, 0.60, 0.84),
        water=(0.36, 0.50, 0.66),
    ),
    "night": dict(
        top=(0.03, 0.05, 0.24),
        low=(0.26, 0.38, 0.72),
        disc=(0.98, 0.98, 0.88),
        far=(0.20, 0.32, 0.60),
        near=(0.03, 0.12, 0.22),
        soil=(0.05, 0.18, 0.28),
        crop=(0.24, 0.60, 0.62),
        water=(0.05, 0.12, 0.34),
    ),
}
_FOREGROUNDS = ("stripes", "dots", "water")
_DRAWS = 64  # uniform numbers drawn for every scene, used or not, so that scenes never shift along the stream


class _Draws:
    """The scene's uniform numbers, taken one after the other."""

    def __init__(self, seed: int):
        self._values = iter(np.random.Generator(np.random.PCG64(seed)).random(_DRAWS).tolist())

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._values)

    def choose(self, options):
        return options[int(next(self._values) * len(options))]


def _wave(turns: np.ndarray) -> np.ndarray:
    """A sine of `turns` full turns after Bhaskara I, within 0.002, from exactly rounded operations only."""
    phase = turns - np.floor(turns)
    upper = phase >= 0.5
    half = 2.0 * phase - upper
    product = half * (1.0 - half)
    return np.where(upper, -1.0, 1.0) * (16.0 * product / (5.0 - 4.0 * product))


def _paint(picture: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
    """Lay `colour` over `picture` (rows, columns, 3) where `cover` (rows, columns) is 1, in place."""
    picture += (colour - picture) * cover[..., None]


def _sky(picture, mood, draws, x, y, horizon, pixel) -> None:
    """Vertical gradient, the disc and its glow."""
    depth = np.minimum(y / horizon, 1.0)[..., None]
    picture[:] = mood["top"] + (mood["low"] - mood["top"]) * (depth * depth)
    radius = draws.uniform(0.05, 0.10)
    centre_x, centre_y = draws.uniform(0.12, 0.88), draws.uniform(0.12, 0.9 * horizon)
    distance = np.sqrt((x - centre_x) * (x - centre_x) + (y - centre_y) * (y - centre_y))
    glow = radius / (radius + distance)
    _paint(picture, mood["disc"], 0.8 * glow * glow)
    _paint(picture, mood["disc"], np.clip((radius - distance) / pixel + 0.5, 0.0, 1.0))


def _outline(draws, x, base, height) -> np.ndarray:
    """A hill's upper edge: three waves of 0.4 to 2.6 turns across the picture, (1, columns)."""
    total = np.zeros_like(x)
    for low, high, weight in ((0.4, 0.9, 0.55), (0.9, 1.6, 0.30), (1.6, 2.6, 0.15)):
        total = total + weight * _wave(draws.uniform(low, high) * x + draws.uniform(0.0, 1.0))
    return base - height * total


def _hills(picture, mood, draws, x, y, horizon, pixel) -> None:
    """Two to four layers, hazier towards the horizon, each darker at its foot."""
    count = draws.choose((2, 3, 4))
    for layer in range(count):
        nearness = layer / (count - 1.0)
        base = horizon - 0.09 + 0.15 * nearness
        edge = _outline(draws, x, base, draws.uniform(0.05, 0.11) * (1.0 - 0.45 * nearness))
        colour = mood["far"] + (mood["near"] - mood["far"]) * nearness
        shade = 1.12 - 0.9 * np.clip(y - edge, 0.0, 0.4)
        cover = np.clip((y - edge) / pixel + 0.5, 0.0, 1.0)
        _paint(picture, colour * shade[..., None], cover)


def _field(picture, mood, draws, x, y, horizon, pixel, dotted) -> None:
    """Rows of a crop that meet in a vanishing point; dots are the rows cut across by their distance."""
    edge = _outline(draws, x, horizon + 0.16, 0.025)
    vanishing_x = draws.uniform(0.15, 0.85)
    depth = np.maximum(y - (horizon + draws.uniform(-0.02, 0.04)), 0.02)
    rows = _wave((x - vanishing_x) / depth * draws.uniform(1.5, 2.6) + draws.uniform(0.0, 1.0))
    cut = _wave(draws.uniform(0.9, 1.3) / depth + draws.uniform(0.0, 1.0))
    crop = np.clip(1.5 * (rows + cut) - 0.3, 0.0, 1.0) if dotted else np.clip(1.6 * rows + 0.5, 0.0, 1.0)
    near = np.clip((y - horizon - 0.08) / 0.2, 0.0, 1.0)  # the finest rows melt into their mean
    mean = 0.35 if dotted else 0.5
    colour = mood["soil"] + (mood["crop"] - mood["soil"]) * (mean + (crop - mean) * near)[..., None]
    _paint(picture, colour * (1.08 - 0.25 * y)[..., None], np.clip((y - edge) / pixel + 0.5, 0.0, 1.0))


def _water(picture, mood, draws, horizon) -> None:
    """Below the shore, the upper part mirrored, tinted and gently rippled, in place."""
    rows, columns = picture.shape[:2]
    shore = int((horizon + draws.uniform(0.06, 0.12)) * rows)
    below = np.arange(shore, rows)
    mirrored = np.maximum(2 * shore - 1 - below, 0)
    depth = (below - shore) / rows
    ripple = _wave(draws.uniform(5.0, 9.0) * depth + draws.uniform(0.0, 1.0)) * depth
    shift = np.floor(0.03 * ripple * columns + 0.5).astype(np.int64)
    across = np.clip(np.arange(columns)[None, :] + shift[:, None], 0, columns - 1)
    reflection = picture[mirrored[:, None], across]
    tint = (0.25 + 0.6 * depth)[:, None, None]
    picture[shore:] = reflection + (mood["water"] - reflection) * tint


def _render(seed: int, size: int) -> np.ndarray:
    side = SUPERSAMPLE * size
    pixel = 1.0 / side
    axis = (np.arange(side) + 0.5) / side
    x, y = axis[None, :], axis[:, None]
    draws = _Draws(seed)
    foreground = draws.choose(_FOREGROUNDS)
    chosen = _MOODS[draws.choose(tuple(_MOODS))]
    light = draws.uniform(0.9, 1.1)
    mood = {name: np.array(colour) * light for name, colour in chosen.items()}
    horizon = draws.uniform(0.40, 0.58)
    picture = np.empty((side, side, 3))
    _sky(picture, mood, draws, x, y, horizon, pixel)
    _hills(picture, mood, draws, x, y, horizon, pixel)
    if foreground == "water":
        _water(picture, mood, draws, horizon)
    else:
        _field(picture, mood, draws, x, y, horizon, pixel, dotted=foreground == "dots")
    return picture


def _box_down(picture: np.ndarray) -> np.ndarray:
    """Average SUPERSAMPLE x SUPERSAMPLE blocks, summing in a fixed order."""
    rows = sum(picture[k::SUPERSAMPLE] for k in range(SUPERSAMPLE))
    return sum(rows[:, k::SUPERSAMPLE] for k in range(SUPERSAMPLE)) / (SUPERSAMPLE * SUPERSAMPLE)


def landscape(seed: int, size: int = 64) -> np.ndarray:
    """Render one scene.

    Args:
        seed: non-negative integer; the same seed is the same scene at every size.
        size: side length in pixels, 8 to 4096.

    Returns:
        uint8 array (size, size, 3), RGB.

    Raises:
        ValueError: `seed` is negative or `size` is outside its range, or either is no integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; allowed: an integer of at least 0")
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 8 <= size <= 4096:
        raise ValueError(f"size is {size!r}; allowed: an integer from 8 to 4096 pixels")
    values = np.floor(_box_down(_render(int(seed), int(size))) * 255.0 + 0.5)
    return np.clip(values, 0.0, 255.0).astype(np.uint8)


def landscapes(seeds: Iterable[int], size: int = 64) -> torch.Tensor:
    """Render scenes as a batch.

    Args:
        seeds: one seed a scene, see `landscape`.
        size: side length in pixels.

    Returns:
        float32 tensor (len(seeds), 3, size, size) in [-1, 1].

    Raises:
        ValueError: no seeds, or a seed or size that `landscape` refuses.
    """
    pictures = [landscape(seed, size) for seed in seeds]
    if not pictures:
        raise ValueError("seeds is empty; allowed: at least one seed")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()
