"""Pictures for reports, drawn with PIL alone: contact sheets and loss plots."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .imageio import to_uint8

INK, SOFT, GRID, PAPER = "#1a1a1a", "#666666", "#dddddd", "#ffffff"
GUIDED = "#eaf2fb"
COLOURS = ("#0b62b0", "#d1491b", "#2a8a3e", "#7b3fa0", "#8a6d00", "#444444")  # distinct in lightness too


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
    left = gap + max((math.ceil(font.getlength(label)) + gap for label in row_labels or []), default=0)
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


def loss_plot(curves, guided=(), title="", x_label="step", y_label="loss", size=(900, 520)):
    """Curves over the steps of a run with a logarithmic y axis, as a PIL image.

    curves: name -> one value per step; values that are not finite or not above 0 leave a gap.
    guided: one bool per step; guided steps get a shaded background.  size: (width, height) in pixels.
    """
    if not curves:
        raise ValueError("curves is empty; give at least one")
    scale = 2  # drawn larger, then reduced: smooth lines
    canvas = Image.new("RGB", (size[0] * scale, size[1] * scale), PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(15 * scale)
    box = 86 * scale, 46 * scale, (size[0] - 24) * scale, (size[1] - 62) * scale  # left, top, right, bottom
    steps = max(len(values) for values in curves.values())
    low, high = _decades(curves)

    def place(step, exponent):
        x = box[0] + (step + 0.5) / max(steps, 1) * (box[2] - box[0])
        return x, box[3] - (exponent - low) / (high - low) * (box[3] - box[1])

    for step in (step for step, flag in enumerate(guided) if flag):
        draw.rectangle((place(step - 0.5, low)[0], box[1], place(step + 0.5, low)[0], box[3]), fill=GUIDED)
    for exponent in range(low, high + 1, math.ceil((high - low) / 8)):
        y = place(0, exponent)[1]
        draw.line((box[0], y, box[2], y), fill=GRID, width=scale)
        draw.text((box[0] - 8 * scale, y), _power(exponent), INK, font=font, anchor="rm")
    every = max(1, math.ceil(steps / 12))
    for step in range(0, steps, every):
        x = place(step, low)[0]
        draw.line((x, box[3], x, box[3] + 5 * scale), fill=INK, width=scale)
        draw.text((x, box[3] + 9 * scale), str(step + 1), INK, font=font, anchor="mt")
    draw.rectangle(box, outline=SOFT, width=scale)
    drawn = [_draw_curve(draw, values, place, colour, scale) for values, colour in zip(curves.values(), _colours())]
    if not any(drawn):
        centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        draw.text(centre, "no finite values above 0", SOFT, font=font, anchor="mm")
    draw.text(((box[0] + box[2]) / 2, (size[1] - 10) * scale), x_label, INK, font=font, anchor="mb")
    draw.text((box[0], 8 * scale), title, INK, font=ImageFont.load_default(17 * scale), anchor="lt")
    _vertical_text(canvas, y_label, font, (14 * scale, (box[1] + box[3]) // 2))
    _legend(draw, list(curves), any(guided), font, box, scale)
    return canvas.resize(size, Image.Resampling.LANCZOS)


def _colours():
    while True:
        yield from COLOURS


def _usable(value):
    return math.isfinite(value) and value > 0


def _decades(curves):
    """Lowest and highest power of ten on the y axis, at least one apart."""
    exponents = [math.log10(float(v)) for values in curves.values() for v in values if _usable(float(v))]
    if not exponents:
        return -1, 0
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    return low, max(high, low + 1)


def _power(exponent):
    return f"{10.0**exponent:g}" if -3 <= exponent <= 3 else f"1e{exponent}"


def _draw_curve(draw, values, place, colour, scale):
    """Polyline with dots, broken at gaps. Returns whether anything was drawn."""
    points = [place(step, math.log10(float(v))) if _usable(float(v)) else None for step, v in enumerate(values)]
    for start, end in zip(points, points[1:]):
        if start and end:
            draw.line((*start, *end), fill=colour, width=2 * scale)
    radius = 2.5 * scale if len(points) <= 60 else scale
    for point in filter(None, points):
        draw.ellipse((point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius), fill=colour)
    return any(points)


def _legend(draw, names, guided, font, box, scale):
    """In the upper right corner, where falling losses leave room."""
    labels = names + (["guided steps"] if guided else [])
    width = max(font.getlength(label) for label in labels) + 44 * scale
    line = 22 * scale
    left, top = box[2] - width - 8 * scale, box[1] + 8 * scale
    draw.rectangle((left, top, box[2] - 8 * scale, top + len(labels) * line + 8 * scale), fill=PAPER, outline=GRID)
    for index, (label, colour) in enumerate(zip(labels, _colours())):
        y = top + 4 * scale + (index + 0.5) * line
        if index < len(names):
            draw.line((left + 8 * scale, y, left + 30 * scale, y), fill=colour, width=3 * scale)
        else:
            swatch = left + 8 * scale, y - 7 * scale, left + 30 * scale, y + 7 * scale
            draw.rectangle(swatch, fill=GUIDED, outline=GRID)
        draw.text((left + 38 * scale, y), label, INK, font=font, anchor="lm")


def _vertical_text(canvas, text, font, centre):
    if not text:
        return
    left, top, right, bottom = font.getbbox(text)
    label = Image.new("RGB", (math.ceil(right), math.ceil(bottom)), PAPER)
    ImageDraw.Draw(label).text((0, 0), text, INK, font=font)
    label = label.rotate(90, expand=True)
    canvas.paste(label, (centre[0] - label.width // 2, centre[1] - label.height // 2))


def checkerboard(image, mask, square=4):
    """image (B, C, H, W) with a grey checkerboard where mask (B or 1, 1, H, W) is 1: how a masked input is shown."""
    rows, columns = np.indices(image.shape[2:]) // square
    pattern = image.new_tensor(((rows + columns) % 2) * 0.3 - 0.05)
    return image * (1 - mask) + pattern * mask
