"""Pictures for reports, drawn with PIL alone: contact sheets. Plots are in `plots`."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..image.files import to_uint8
from .plots import INK, PAPER, SOFT


def contact_sheet(rows, column_labels, row_labels=None, cell=192, gap=8):
    """Images in a labelled grid, as a PIL image.

    rows: rows of images, each (3, H, W) or (1, 3, H, W) in [-1, 1].  column_labels: one per column.
    row_labels: one per row, or None.  cell: largest side of an image on the sheet, in pixels; smaller images are
    enlarged by a whole factor, without smoothing.
    """
    if not rows or any(len(row) != len(column_labels) for row in rows):
        lengths = [len(row) for row in rows]
        raise ValueError(f"rows have {lengths} images for {len(column_labels)} column labels; all must agree")
    if row_labels is not None and len(row_labels) != len(rows):
        raise ValueError(f"there are {len(row_labels)} row labels for {len(rows)} rows; both must agree")
    pictures = [[_fit(Image.fromarray(to_uint8(image)), cell) for image in row] for row in rows]
    cell = max(picture.width for row in pictures for picture in row)
    font = ImageFont.load_default(15)
    lines = [line for label in row_labels or [] for line in label.split("\n")]
    left = gap + max((math.ceil(font.getlength(line)) + gap for line in lines), default=0)
    heights = [max(picture.height for picture in row) for row in pictures]
    top = 24 + gap
    size = left + len(column_labels) * (cell + gap), top + sum(height + gap for height in heights)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(column_labels):
        centre = left + column * (cell + gap) + cell // 2
        draw.text((centre, top // 2), label, INK, font=_shrunk(label, 15, cell), anchor="mm")
    y = top
    for index, (row, height) in enumerate(zip(pictures, heights)):
        if row_labels is not None:
            draw.text((gap, y + height // 2), row_labels[index], SOFT, font=font, anchor="lm")
        for column, picture in enumerate(row):
            sheet.paste(picture, (left + column * (cell + gap) + (cell - picture.width) // 2, y))
        y += height + gap
    return sheet


def _fit(picture, cell):
    """Resize to at most `cell` wide and high; enlarge by a whole factor."""
    factor = cell / max(picture.size)
    if factor >= 1:
        factor = math.floor(factor)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _shrunk(text, size, width):
    """Default font, smaller where the text would be wider than `width`."""
    while size > 8 and ImageFont.load_default(size).getlength(text) > width:
        size -= 1
    return ImageFont.load_default(size)


def checkerboard(image, mask, square=4):
    """image (B, C, H, W) with a grey checkerboard where mask (B or 1, 1, H, W) is 1: how a masked input is shown."""
    rows, columns = np.indices(image.shape[2:]) // square
    pattern = image.new_tensor(((rows + columns) % 2) * 0.3 - 0.05)
    return image * (1 - mask) + pattern * mask
