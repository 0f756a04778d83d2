"""Contact sheets of finished pictures: original, masked, each method."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from ..drawing.contact_sheet import checkerboard, contact_sheet
from ..image.files import load_image, load_mask, save_image
from .records import replace_file
from .scoring import Source

ROWS = 8  # images on a sheet


def write_sheets(
    folder: Path, inputs: Path, masks: Path, sources: Sequence[Source], names: Sequence[str]
) -> list[Path]:
    """Write sheets of these images as folder/sheet_01.png and so on, ROWS images each.

    Args:
        folder: where the sheets go.
        inputs, masks: folders with NAME.png.
        sources: the first seed of each is shown.
        names: images that a source lacks are left out.

    Returns:
        The sheets' paths.
    """
    firsts = {source.label: next(iter(source.files.values())) for source in sources if source.files}
    names = [name for name in names if all(name in files for files in firsts.values())]
    paths = []
    for start in range(0, len(names), ROWS):
        rows = []
        for name in names[start : start + ROWS]:
            image = load_image(inputs / f"{name}.png")
            masked = checkerboard(image, load_mask(masks / f"{name}.png", size=image.shape[2:]))
            rows.append([image, masked, *(load_image(files[name]) for files in firsts.values())])
        sheet = contact_sheet(rows, ["original", "masked", *firsts], names[start : start + ROWS], cell=160)
        path = folder / f"sheet_{start // ROWS + 1:02d}.png"
        paths.append(replace_file(path, functools.partial(save_image, sheet)))
    return paths
