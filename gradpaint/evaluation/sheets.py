"""Contact sheets of finished pictures: original, masked, each method."""

from ..drawing.contact_sheet import checkerboard, contact_sheet
from ..image.files import load_image, load_mask, save_image
from .records import replace_file

ROWS = 8  # images on a sheet


def write_sheets(folder, inputs, masks, sources, names, seed=None):
    """Sheets of these images as folder/sheet_01.png, ..., ROWS images each. Returns their paths.

    inputs, masks: folders with NAME.png.  sources: `scoring.Source` each; of those with several seeds the first is
    shown. Images that a source lacks are left out.
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
        paths.append(replace_file(path, lambda temporary, sheet=sheet: save_image(sheet, temporary)))
    return paths
