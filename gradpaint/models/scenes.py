"""Procedural landscapes: the training and demo images of the bundled model.

A scene has a sky gradient with a sun or moon, two to four layers of hills, and in the foreground a striped field, a
dotted field or water with a reflection. Lines and colors run across the picture, so a mask always cuts through
structure that has to be continued.

A scene depends on its seed only. Every pixel is computed from a PCG64 stream by float64 additions, products, quotients,
square roots and floors, which IEEE 754 rounds the same on every machine. `sin` and `exp` are avoided, because their
last bit differs between processors. Scenes are rendered at `SUPERSAMPLE` times their size and averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

T = TypeVar("T")
Floats: TypeAlias = npt.NDArray[np.float64]
Color: TypeAlias = tuple[float, float, float]  # RGB in [0, 1]

TRAIN_SEEDS = range(0, 10_000_000)
"""Seeds for training; `training/train_demo.py` records which of them it used."""

HELD_OUT_SEEDS = range(10_000_000, 10_100_000)
"""Seeds for validation, evaluation and demos, never for training."""

SUPERSAMPLE = 2


class _Mood(NamedTuple):
    """The colors of a scene: sky (top and low), sun or moon, hills (far and near), field (soil and crop) and water."""

    top: Color
    low: Color
    disc: Color
    far: Color
    near: Color
    soil: Color
    crop: Color
    water: Color


_MOODS = {
    "day": _Mood(
        top=(0.16, 0.45, 0.88),
        low=(0.76, 0.90, 0.98),
        disc=(1.00, 0.96, 0.70),
        far=(0.46, 0.64, 0.80),
        near=(0.13, 0.48, 0.20),
        soil=(0.30, 0.58, 0.16),
        crop=(0.90, 0.82, 0.25),
        water=(0.10, 0.36, 0.60),
    ),
    "dusk": _Mood(
        top=(0.22, 0.14, 0.45),
        low=(1.00, 0.55, 0.25),
        disc=(1.00, 0.86, 0.45),
        far=(0.72, 0.36, 0.42),
        near=(0.24, 0.10, 0.26),
        soil=(0.34, 0.14, 0.24),
        crop=(0.88, 0.45, 0.26),
        water=(0.26, 0.14, 0.36),
    ),
    "dawn": _Mood(
        top=(0.40, 0.62, 0.80),
        low=(1.00, 0.80, 0.76),
        disc=(1.00, 0.95, 0.88),
        far=(0.74, 0.66, 0.80),
        near=(0.20, 0.42, 0.46),
        soil=(0.40, 0.30, 0.52),
        crop=(0.84, 0.60, 0.84),
        water=(0.36, 0.50, 0.66),
    ),
    "night": _Mood(
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
_DRAWS = 64  # uniform numbers per scene, used or not, so that every scene has the same place in the stream


class _Draws:
    """The scene's uniform random numbers, used one after another."""

    def __init__(self, seed: int):
        self._values = iter(np.random.Generator(np.random.PCG64(seed)).random(_DRAWS).tolist())

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._values)

    def choose(self, options: Sequence[T]) -> T:
        return options[int(next(self._values) * len(options))]


class _Canvas(NamedTuple):
    """What a scene is painted on.

    picture: (rows, columns, 3) RGB, changed in place. x: (1, columns) and y: (rows, 1), pixel centers in [0, 1].
    pixel: the side of a pixel in the same units. horizon: height of the horizon, as a y.
    """

    picture: Floats
    x: Floats
    y: Floats
    pixel: float
    horizon: float

    def below(self, edge: Floats) -> Floats:
        """Return the share of each pixel below an edge, (rows, columns)."""
        return np.clip((self.y - edge) / self.pixel + 0.5, 0.0, 1.0)


def _wave(turns: Floats) -> Floats:
    """Return the sine of a number of full turns to within 0.002 (Bhaskara I), with exactly rounded operations only."""
    phase = turns - np.floor(turns)
    upper = phase >= 0.5
    half = 2.0 * phase - upper
    product = half * (1.0 - half)
    return np.where(upper, -1.0, 1.0) * (16.0 * product / (5.0 - 4.0 * product))


def _paint(picture: Floats, color: Floats, cover: Floats) -> None:
    """Paint `color` over `picture` (rows, columns, 3) in place, to the share `cover` (rows, columns) of each pixel."""
    picture += (color - picture) * cover[..., None]


def _sky(canvas: _Canvas, mood: dict[str, Floats], draws: _Draws) -> None:
    """Paint a vertical gradient, then the sun or moon with its glow."""
    picture, x, y, pixel, horizon = canvas
    depth = np.minimum(y / horizon, 1.0)[..., None]
    picture[:] = mood["top"] + (mood["low"] - mood["top"]) * (depth * depth)
    radius = draws.uniform(0.05, 0.10)
    center_x, center_y = draws.uniform(0.12, 0.88), draws.uniform(0.12, 0.9 * horizon)
    distance = np.sqrt((x - center_x) * (x - center_x) + (y - center_y) * (y - center_y))
    glow = radius / (radius + distance)
    _paint(picture, mood["disc"], 0.8 * glow * glow)
    _paint(picture, mood["disc"], np.clip((radius - distance) / pixel + 0.5, 0.0, 1.0))


def _outline(draws: _Draws, x: Floats, base: float, height: float) -> Floats:
    """Return a hill's upper edge, three waves of 0.4 to 2.6 turns across the picture, (1, columns)."""
    total = np.zeros_like(x)
    for low, high, weight in ((0.4, 0.9, 0.55), (0.9, 1.6, 0.30), (1.6, 2.6, 0.15)):
        total = total + weight * _wave(draws.uniform(low, high) * x + draws.uniform(0.0, 1.0))
    return base - height * total


def _hills(canvas: _Canvas, mood: dict[str, Floats], draws: _Draws) -> None:
    """Paint two to four layers of hills, hazier toward the horizon, each darker at its foot."""
    picture, x, y, _, horizon = canvas
    count = draws.choose((2, 3, 4))
    for layer in range(count):
        nearness = layer / (count - 1.0)
        base = horizon - 0.09 + 0.15 * nearness
        edge = _outline(draws, x, base, draws.uniform(0.05, 0.11) * (1.0 - 0.45 * nearness))
        color = mood["far"] + (mood["near"] - mood["far"]) * nearness
        shade = 1.12 - 0.9 * np.clip(y - edge, 0.0, 0.4)
        _paint(picture, color * shade[..., None], canvas.below(edge))


def _field(canvas: _Canvas, mood: dict[str, Floats], draws: _Draws, dotted: bool) -> None:
    """Paint rows of a crop that meet in a vanishing point; for dots, the rows are interrupted at regular distances."""
    picture, x, y, _, horizon = canvas
    edge = _outline(draws, x, horizon + 0.16, 0.025)
    vanishing_x = draws.uniform(0.15, 0.85)
    depth = np.maximum(y - (horizon + draws.uniform(-0.02, 0.04)), 0.02)
    rows = _wave((x - vanishing_x) / depth * draws.uniform(1.5, 2.6) + draws.uniform(0.0, 1.0))
    cut = _wave(draws.uniform(0.9, 1.3) / depth + draws.uniform(0.0, 1.0))
    crop = np.clip(1.5 * (rows + cut) - 0.3, 0.0, 1.0) if dotted else np.clip(1.6 * rows + 0.5, 0.0, 1.0)
    near = np.clip((y - horizon - 0.08) / 0.2, 0.0, 1.0)  # far away, rows blend into their mean
    mean = 0.35 if dotted else 0.5
    color = mood["soil"] + (mood["crop"] - mood["soil"]) * (mean + (crop - mean) * near)[..., None]
    _paint(picture, color * (1.08 - 0.25 * y)[..., None], canvas.below(edge))


def _water(picture: Floats, mood: dict[str, Floats], draws: _Draws, horizon: float) -> None:
    """Replace what is below the shore by a tinted and slightly rippled reflection, in place."""
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


def _render(seed: int, size: int) -> Floats:
    """Paint a scene at `SUPERSAMPLE` times `size`, (rows, columns, 3) in about [0, 1]."""
    side = SUPERSAMPLE * size
    pixel = 1.0 / side
    axis = (np.arange(side) + 0.5) / side
    x, y = axis[None, :], axis[:, None]
    draws = _Draws(seed)
    foreground = draws.choose(_FOREGROUNDS)
    chosen = _MOODS[draws.choose(tuple(_MOODS))]
    light = draws.uniform(0.9, 1.1)
    mood = {name: np.array(color) * light for name, color in chosen._asdict().items()}
    canvas = _Canvas(np.empty((side, side, 3)), x, y, pixel, draws.uniform(0.40, 0.58))
    _sky(canvas, mood, draws)
    _hills(canvas, mood, draws)
    if foreground == "water":
        _water(canvas.picture, mood, draws, canvas.horizon)
    else:
        _field(canvas, mood, draws, dotted=foreground == "dots")
    return canvas.picture


def _average_blocks(picture: Floats) -> Floats:
    """Average blocks of SUPERSAMPLE x SUPERSAMPLE pixels, summing in a fixed order."""
    step = range(1, SUPERSAMPLE)
    rows = sum((picture[k::SUPERSAMPLE] for k in step), picture[::SUPERSAMPLE])
    return sum((rows[:, k::SUPERSAMPLE] for k in step), rows[:, ::SUPERSAMPLE]) / (SUPERSAMPLE * SUPERSAMPLE)


def landscape(seed: int, size: int = 64) -> np.ndarray:
    """Render one scene.

    Args:
        seed: integer of at least 0. The same seed gives the same scene at every size.
        size: side length in pixels, 8 to 4096.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        ValueError: `seed` or `size` is out of range or not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; allowed: an integer of at least 0")
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 8 <= size <= 4096:
        raise ValueError(f"size is {size!r}; allowed: an integer from 8 to 4096 pixels")
    values = np.floor(_average_blocks(_render(int(seed), int(size))) * 255.0 + 0.5)
    return np.clip(values, 0.0, 255.0).astype(np.uint8)


def landscapes(seeds: Iterable[int], size: int = 64) -> torch.Tensor:
    """Render scenes as a batch.

    Args:
        seeds: one per scene, see `landscape`.
        size: side length in pixels.

    Returns:
        (len(seeds), 3, size, size) float32 in [-1, 1].

    Raises:
        ValueError: no seeds, or a seed or size that `landscape` rejects.
    """
    pictures = [landscape(seed, size) for seed in seeds]
    if not pictures:
        raise ValueError("seeds is empty; allowed: at least one seed")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()
