"""Plots, drawn with PIL: curves over a run's steps, and quality against cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

INK, SOFT, GRID, PAPER = "#1a1a1a", "#666666", "#dddddd", "#ffffff"
GUIDED = "#eaf2fb"
COLORS = ("#0b62b0", "#d1491b", "#2a8a3e", "#7b3fa0", "#8a6d00", "#444444")  # they differ in lightness too
SCALE = 2  # plots are drawn larger and then reduced, which smooths lines

Ticks: TypeAlias = Sequence[tuple[float, str]]  # value and text
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Axes:
    """An empty plot to draw on, in the coordinates of the data.

    Args:
        x: (low, high) of the horizontal axis.
        y: (low, high) of the vertical axis.
        x_ticks: ticks of the horizontal axis.
        y_ticks: ticks of the vertical axis, with a grid line each.
        title: above the plot.
        x_label: below the horizontal axis.
        y_label: to the left of the vertical axis.
        size: (width, height) of the plot, in pixels.
        shaded: (left, right) of the intervals of x with a shaded background.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        x_ticks: Ticks,
        y_ticks: Ticks,
        title: str = "",
        x_label: str = "",
        y_label: str = "",
        size: tuple[int, int] = (900, 520),
        shaded: Iterable[tuple[float, float]] = (),
    ):
        self.x, self.y, self.size = x, y, size
        self.canvas = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
        self.draw = ImageDraw.Draw(self.canvas)
        self.font = ImageFont.load_default(15 * SCALE)
        # left, top, right, bottom
        self.box = box = 86 * SCALE, 46 * SCALE, (size[0] - 24) * SCALE, (size[1] - 62) * SCALE
        for left, right in shaded:
            self.draw.rectangle((self.place(left, 0)[0], box[1], self.place(right, 0)[0], box[3]), fill=GUIDED)
        for value, text in y_ticks:
            height = self.place(0, value)[1]
            self.draw.line((box[0], height, box[2], height), fill=GRID, width=SCALE)
            self.draw.text((box[0] - 8 * SCALE, height), text, INK, font=self.font, anchor="rm")
        for value, text in x_ticks:
            across = self.place(value, 0)[0]
            self.draw.line((across, box[3], across, box[3] + 5 * SCALE), fill=INK, width=SCALE)
            self.draw.text((across, box[3] + 9 * SCALE), text, INK, font=self.font, anchor="mt")
        self.draw.rectangle(box, outline=SOFT, width=SCALE)
        self.draw.text(((box[0] + box[2]) / 2, (size[1] - 10) * SCALE), x_label, INK, font=self.font, anchor="mb")
        self.draw.text((box[0], 8 * SCALE), title, INK, font=ImageFont.load_default(17 * SCALE), anchor="lt")
        _vertical_text(self.canvas, y_label, self.font, (14 * SCALE, (box[1] + box[3]) // 2))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return a point's position on the enlarged canvas."""
        left, top, right, bottom = self.box
        return (
            left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (right - left),
            bottom - (y - self.y[0]) / (self.y[1] - self.y[0]) * (bottom - top),
        )

    def curve(self, points: Sequence[tuple[float, float] | None], color: str) -> bool:
        """Draw a polyline with dots, interrupted where a point is None, and return whether it has any point."""
        placed = [None if point is None else self.place(*point) for point in points]
        for start, end in zip(placed, placed[1:]):
            if start and end:
                self.draw.line((*start, *end), fill=color, width=2 * SCALE)
        radius = 2.5 * SCALE if len(placed) <= 60 else SCALE
        for x, y in filter(None, placed):
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
        return any(placed)

    def error_bar(self, x: float, y: float, error: float, color: str) -> None:
        """Draw a bar from y - error to y + error, with caps."""
        across, high = self.place(x, y + error)
        low = self.place(x, y - error)[1]
        cap = 5 * SCALE
        self.draw.line((across, high, across, low), fill=color, width=3 * SCALE // 2)
        for end in (high, low):
            self.draw.line((across - cap, end, across + cap, end), fill=color, width=3 * SCALE // 2)

    def note(self, x: float, y: float, text: str, color: str = INK) -> None:
        """Write small text above a point, to its right if there is room, else to its left."""
        across, height = self.place(x, y)
        font = ImageFont.load_default(12 * SCALE)
        fits = across + 8 * SCALE + font.getlength(text) <= self.box[2]
        place = (across + (6 if fits else -6) * SCALE, height - 6 * SCALE)
        self.draw.text(place, text, color, font=font, anchor="lb" if fits else "rb")

    def message(self, text: str) -> None:
        """Write text in the middle of the plot."""
        left, top, right, bottom = self.box
        self.draw.text(((left + right) / 2, (top + bottom) / 2), text, SOFT, font=self.font, anchor="mm")

    def legend(self, names: Sequence[str], shaded: str = "") -> None:
        """Draw the legend in the upper right corner, where a falling loss leaves room.

        Args:
            names: of the curves, in the order of `COLORS`.
            shaded: meaning of the shaded background; empty if there is none.
        """
        labels = [*names, *([shaded] if shaded else [])]
        box, line = self.box, 22 * SCALE
        left = box[2] - max(self.font.getlength(label) for label in labels) - 52 * SCALE
        top = box[1] + 8 * SCALE
        frame = left, top, box[2] - 8 * SCALE, top + len(labels) * line + 8 * SCALE
        self.draw.rectangle(frame, fill=PAPER, outline=GRID)
        for index, label in enumerate(labels):
            y = top + 4 * SCALE + (index + 0.5) * line
            if index < len(names):
                color = COLORS[index % len(COLORS)]
                self.draw.line((left + 8 * SCALE, y, left + 30 * SCALE, y), fill=color, width=3 * SCALE)
            else:
                swatch = left + 8 * SCALE, y - 7 * SCALE, left + 30 * SCALE, y + 7 * SCALE
                self.draw.rectangle(swatch, fill=GUIDED, outline=GRID)
            self.draw.text((left + 38 * SCALE, y), label, INK, font=self.font, anchor="lm")

    def image(self) -> Image.Image:
        """Return the finished plot at its final size."""
        return self.canvas.resize(self.size, Image.Resampling.LANCZOS)


def loss_plot(
    curves: Mapping[str, Sequence[float]],
    guided: Sequence[bool] = (),
    title: str = "",
    x_label: str = "step",
    y_label: str = "loss",
    size: tuple[int, int] = (900, 520),
    names: Sequence[str] | None = None,
) -> Image.Image:
    """Draw curves over the steps of a run with a logarithmic y axis.

    Args:
        curves: name -> one value per step. Values that are not finite or not above 0 leave a gap.
        guided: whether each step is guided; guided steps have a shaded background.
        title: above the plot.
        x_label: below the steps.
        y_label: of the values.
        size: (width, height) in pixels.
        names: what to write below each step; by default its number, from 1.

    Raises:
        ValueError: no curves, or fewer names than steps.
    """
    if not curves:
        raise ValueError("curves is empty; give at least one")
    steps = max(len(values) for values in curves.values())
    names = [str(step + 1) for step in range(steps)] if names is None else names
    if len(names) < steps:
        raise ValueError(f"names has {len(names)} entries for {steps} steps; each step needs one")
    low, high = _decades(curves)
    y_ticks = [(e, _power(e)) for e in range(low, high + 1, math.ceil((high - low) / 8))]
    x_ticks = [(step, names[step]) for step in range(0, steps, max(1, math.ceil(steps / 12)))]
    shaded = [(step - 0.5, step + 0.5) for step, flag in enumerate(guided) if flag]
    axes = Axes((-0.5, max(steps, 1) - 0.5), (low, high), x_ticks, y_ticks, title, x_label, y_label, size, shaded)
    drawn = [
        axes.curve(
            [(step, math.log10(float(v))) if _usable(float(v)) else None for step, v in enumerate(values)],
            COLORS[index % len(COLORS)],
        )
        for index, values in enumerate(curves.values())
    ]
    if not any(drawn):
        axes.message("no finite values above 0")
    axes.legend(list(curves), "guided steps" if shaded else "")
    return axes.image()


def tradeoff_plot(
    points: Mapping[str, Sequence[tuple]],
    x_label: str = "share of the steps that are guided",
    y_label: str = "LPIPS",
    title: str = "",
    size: tuple[int, int] = (900, 520),
) -> Image.Image:
    """Draw quality against cost with error bars, as in Fig. 9 of the paper.

    Args:
        points: name of a series -> points (x, y), (x, y, error) or (x, y, error, note). The error is one standard error
            of y, or None for no bar; the note is written next to the point. Points are connected in order of x; those
            whose x or y is not finite are left out. A series with a single point is a dot.
        x_label: of the cost.
        y_label: of the quality.
        title: above the plot.
        size: (width, height) in pixels.

    Raises:
        ValueError: no finite point, or a point with another number of values.
    """
    series = {name: sorted((_point(point) for point in given), key=lambda p: p[0]) for name, given in points.items()}
    series = {name: [p for p in given if math.isfinite(p[0]) and math.isfinite(p[1])] for name, given in series.items()}
    shown = [point for given in series.values() for point in given]
    if not shown:
        raise ValueError(f"points is {dict(points)!r}, but must hold at least one point with finite x and y")
    x = _padded([point[0] for point in shown])
    y = _padded([point[1] + sign * point[2] for point in shown for sign in (-1, 1)], above=0.25)  # room for the legend
    axes = Axes(x, y, nice_ticks(*x), nice_ticks(*y), title, x_label, y_label, size)
    for index, given in enumerate(series.values()):
        color = COLORS[index % len(COLORS)]
        axes.curve([point[:2] for point in given], color)
        for across, height, error, note in given:
            if error > 0:
                axes.error_bar(across, height, error, color)
            axes.note(across, height, note, color)
    axes.legend(list(series))
    return axes.image()


def nice_ticks(low: float, high: float, most: int = 8) -> list[tuple[float, str]]:
    """Place at most `most` ticks within [low, high], at multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * (1 - 1e-9))
    count = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(n * step, f"{n * step:.{digits}f}") for n in count]


def _point(point: tuple) -> tuple[float, float, float, str]:
    """Return (x, y, error, note), with 0 and "" for what is missing."""
    if not 2 <= len(point) <= 4:
        raise ValueError(f"points has {point!r}, but each must be (x, y), (x, y, error) or (x, y, error, note)")
    x, y, error, note = (*point, None, None)[:4] if len(point) < 4 else point
    error = 0.0 if error is None or not math.isfinite(error) else float(error)
    return float(x), float(y), error, str(note or "")


def _padded(values: list[float], above: float = 0.06) -> tuple[float, float]:
    """Return the range of the values, widened by a share of it below and above."""
    low, high = min(values), max(values)
    span = high - low or abs(high) or 1.0
    return low - 0.06 * span, high + above * span


def _usable(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _decades(curves: Mapping[str, Sequence[float]]) -> tuple[int, int]:
    """Return the lowest and highest power of ten on the y axis, at least one apart."""
    exponents = [math.log10(float(v)) for values in curves.values() for v in values if _usable(float(v))]
    if not exponents:
        return -1, 0
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    return low, max(high, low + 1)


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -3 <= exponent <= 3 else f"1e{exponent}"


def _vertical_text(canvas: Image.Image, text: str, font: Font, center: tuple[float, float]) -> None:
    if not text:
        return
    left, top, right, bottom = font.getbbox(text)
    label = Image.new("RGB", (math.ceil(right), math.ceil(bottom)), PAPER)
    ImageDraw.Draw(label).text((0, 0), text, INK, font=font)
    label = label.rotate(90, expand=True)
    canvas.paste(label, (round(center[0] - label.width / 2), round(center[1] - label.height / 2)))
