"""Contact sheets, drawn with PIL."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..image.files import to_uint8
from .plots import INK, PAPER, SOFT, Font

FONT_SIZE = 15
HEADER = 24  # height of the column labels, pixels


def contact_sheet(
    rows: Sequence[Sequence[Tensor]],
    column_labels: Sequence[str],
    row_labels: Sequence[str] | None = None,
    cell: int = 192,
    gap: int = 8,
) -> Image.Image:
    """Draw images in a labeled grid.

    Args:
        rows: rows of images, each (3, H, W) or (1, 3, H, W) in [-1, 1].
        column_labels: one per column.
        row_labels: one per row, or None.
        cell: longer side of an image on the sheet, in pixels, at most; smaller images are enlarged by a whole factor
            without smoothing.
        gap: between images, in pixels.

    Raises:
        ValueError: the numbers of images and labels differ, or an image has another shape.
    """
    if not rows or any(len(row) != len(column_labels) for row in rows):
        lengths = [len(row) for row in rows]
        raise ValueError(f"rows have {lengths} images for {len(column_labels)} column labels; the numbers must agree")
    if row_labels is not None and len(row_labels) != len(rows):
        raise ValueError(f"there are {len(row_labels)} row labels for {len(rows)} rows; the numbers must agree")
    pictures = [[_fit(Image.fromarray(to_uint8(image)), cell) for image in row] for row in rows]
    cell = max(picture.width for row in pictures for picture in row)
    font = ImageFont.load_default(FONT_SIZE)
    lines = [line for label in row_labels or [] for line in label.split("\n")]
    left = gap + max((math.ceil(font.getlength(line)) + gap for line in lines), default=0)
    heights = [max(picture.height for picture in row) for row in pictures]
    top = HEADER + gap
    size = left + len(column_labels) * (cell + gap), top + sum(height + gap for height in heights)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(column_labels):
        center = left + column * (cell + gap) + cell // 2
        draw.text((center, top // 2), label, INK, font=_fitting_font(label, FONT_SIZE, cell), anchor="mm")
    y = top
    for index, (row, height) in enumerate(zip(pictures, heights)):
        if row_labels is not None:
            draw.text((gap, y + height // 2), row_labels[index], SOFT, font=font, anchor="lm")
        for column, picture in enumerate(row):
            sheet.paste(picture, (left + column * (cell + gap) + (cell - picture.width) // 2, y))
        y += height + gap
    return sheet


def _fit(picture: Image.Image, cell: int) -> Image.Image:
    """Reduce to at most `cell` pixels wide and high, or enlarge by a whole factor."""
    factor = cell / max(picture.size)
    if factor >= 1:
        factor = math.floor(factor)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _fitting_font(text: str, size: int, width: int) -> Font:
    """Return the default font at this size, or smaller if the text would be wider than `width`."""
    while size > 8 and ImageFont.load_default(size).getlength(text) > width:
        size -= 1
    return ImageFont.load_default(size)


def checkerboard(image: Tensor, mask: Tensor, square: int = 4) -> Tensor:
    """Show a masked input: image (B, C, H, W) with a gray checkerboard where mask (B or 1, 1, H, W) is 1."""
    rows, columns = np.indices(image.shape[2:]) // square
    pattern = image.new_tensor(((rows + columns) % 2) * 0.3 - 0.05)
    return image * (1 - mask) + pattern * mask
