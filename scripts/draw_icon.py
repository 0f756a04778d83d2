#!/usr/bin/env python3
"""Draw the registry's icon (400 x 400) and banner (21:9) into assets/: a picture with a hole in the shape of nabla.

The picture's lines go on through the hole, dashed: that is what GradPaint does. Needs pillow and numpy only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
SCALE = 4  # drawn this many times larger, then reduced: smooth edges
SKY = ((0.0, (27, 24, 66)), (0.45, (124, 46, 128)), (0.8, (244, 118, 92)), (1.0, (255, 205, 120)))
HILLS = (
    (0.62, 0.055, 1.15, 0.4, (64, 44, 112)),
    (0.74, 0.06, 0.85, 2.1, (38, 34, 84)),
    (0.87, 0.035, 1.4, 4.0, (18, 20, 52)),
)  # height, swing, waves, phase, colour
SUN, HOLE, LINE, DASH = (255, 236, 178), (12, 13, 24), (255, 255, 255), (255, 190, 110)


def sky(width: int, height: int) -> Image.Image:
    """A vertical blend of SKY, RGB."""
    places, colours = [place for place, _ in SKY], np.array([colour for _, colour in SKY], float)
    rows = np.linspace(0, 1, height)
    column = np.stack([np.interp(rows, places, colours[:, channel]) for channel in range(3)], 1)
    return Image.fromarray(np.repeat(column[:, None], width, 1).round().astype(np.uint8))


def ridge(width: int, height: int, hill: tuple, unit: float) -> list[tuple[float, float]]:
    """The upper edge of one hill as points; `unit` is the width of one picture, so that banners hold several waves."""
    level, swing, waves, phase, _ = hill
    x = np.arange(-8, width + 9, 4)
    y = height * (level + swing * np.sin(2 * np.pi * waves * x / unit + phase))
    return list(zip(x.tolist(), y.tolist()))


def landscape(width: int, height: int, sun: tuple[float, float], unit: float) -> Image.Image:
    """Sky, sun and hills, RGB. sun: its middle, pixels."""
    picture = sky(width, height)
    draw = ImageDraw.Draw(picture)
    radius = unit * 0.1
    draw.ellipse([sun[0] - radius, sun[1] - radius, sun[0] + radius, sun[1] + radius], fill=SUN)
    for hill in HILLS:
        draw.polygon([(-8, height + 8), *ridge(width, height, hill, unit), (width + 8, height + 8)], fill=hill[-1])
    return picture


def nabla(middle: tuple[float, float], size: float) -> list[tuple[float, float]]:
    """The corners of an equilateral triangle that stands on its tip; size: its side, pixels."""
    x, y = middle
    rise = size * 3**0.5 / 2
    return [(x - size / 2, y - rise / 3), (x + size / 2, y - rise / 3), (x, y + rise * 2 / 3)]


def rounded_line(draw: ImageDraw.ImageDraw, points: list, colour, width: float) -> None:
    """A line of round dots, so close that it is smooth: ImageDraw's own wide lines fray where they bend."""
    for (x, y), (x_next, y_next) in zip(points, points[1:]):
        for part in np.linspace(0, 1, 2 + int(np.hypot(x_next - x, y_next - y) / 2)):
            at_x, at_y = x + part * (x_next - x), y + part * (y_next - y)
            draw.ellipse([at_x - width / 2, at_y - width / 2, at_x + width / 2, at_y + width / 2], fill=colour)


def dashes(points: list, length: float, gap: float) -> list[list]:
    """The line cut into dashes of that length with gaps between them, pixels."""
    parts, part, along = [], [], 0.0
    for before, point in zip(points, points[1:]):
        if along % (length + gap) < length:
            part.append(point)
        elif part:
            parts.append(part)
            part = []
        along += ((point[0] - before[0]) ** 2 + (point[1] - before[1]) ** 2) ** 0.5
    return [part for part in [*parts, part] if len(part) > 1]


def cut_hole(picture: Image.Image, middle: tuple[float, float], size: float, unit: float) -> Image.Image:
    """The picture with a dark nabla in it, in which the ridges go on as dashed lines."""
    width, height = picture.size
    corners, stroke = nabla(middle, size), size * 0.085
    inside = Image.new("L", picture.size)
    ImageDraw.Draw(inside).polygon(corners, fill=255)
    hole = Image.new("RGB", picture.size, HOLE)
    draw = ImageDraw.Draw(hole)
    for hill in HILLS[:2]:
        for part in dashes(ridge(width, height, hill, unit), size * 0.09, size * 0.095):
            rounded_line(draw, part, DASH, size * 0.045)
    picture = Image.composite(hole, picture, inside)
    rounded_line(ImageDraw.Draw(picture), [*corners, corners[0], corners[1]], LINE, stroke)
    return picture


def round_corners(picture: Image.Image, radius: float) -> Image.Image:
    """RGBA with transparent corners."""
    alpha = Image.new("L", picture.size)
    ImageDraw.Draw(alpha).rounded_rectangle([0, 0, picture.width - 1, picture.height - 1], radius, fill=255)
    picture = picture.convert("RGBA")
    picture.putalpha(ImageChops.multiply(picture.getchannel("A"), alpha))
    return picture


def icon(size: int = 400) -> Image.Image:
    """The square icon, RGBA."""
    large = size * SCALE
    picture = landscape(large, large, (large * 0.8, large * 0.2), large)
    picture = cut_hole(picture, (large * 0.5, large * 0.53), large * 0.62, large)
    return round_corners(picture, large * 0.16).resize((size, size), Image.Resampling.LANCZOS)


def banner(height: int = 720) -> Image.Image:
    """The 21:9 banner with the name, RGB."""
    width, tall = height * 21 // 9 * SCALE, height * SCALE
    picture = landscape(width, tall, (width * 0.9, tall * 0.24), tall)
    picture = cut_hole(picture, (width * 0.2, tall * 0.53), tall * 0.6, tall)
    draw = ImageDraw.Draw(picture)
    left = width * 0.385
    draw.text((left, tall * 0.42), "GradPaint", fill=LINE, font=ImageFont.load_default(tall * 0.2), anchor="ls")
    draw.text(
        (left * 1.01, tall * 0.53),
        "inpainting with the model's own gradient",
        fill=SUN,
        font=ImageFont.load_default(tall * 0.064),
        anchor="ls",
    )
    return picture.resize((width // SCALE, height), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "assets")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (("icon.png", icon()), ("banner.png", banner())):
        picture.save(folder / name, optimize=True)
        print(f"{folder / name}: {picture.width} x {picture.height}, {(folder / name).stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
