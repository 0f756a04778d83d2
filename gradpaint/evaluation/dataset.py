"""The images and masks of an evaluation, read one batch at a time.

What belongs to an image (its mask, its noise) depends on its name and the seeds alone, so that more images, other
methods or an interruption change nothing for those already done.
"""

import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..image.files import load_image, load_mask, to_uint8
from ..masks import mask_options, masks_above
from ..models.scenes import HELD_OUT_SEEDS, landscapes

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SCENES = "scenes"  # the name of the procedural data set
MIN_COVERAGE = 0.01  # LaMa's generators now and then give a hole of a few pixels, which says nothing


def stream_seed(*numbers_and_names):
    """A seed for a generator, 0 .. 2^32 - 1, from whole numbers and strings: distinct inputs, independent streams."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode("utf-8")) for part in numbers_and_names]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def named_files(folder):
    """name -> path of every image under `folder`, sorted; the name is the path without suffix, "/" as "__"."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of images")
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()):
        name = "__".join(path.relative_to(folder).with_suffix("").parts)
        if name in files:
            raise ValueError(f"{folder} has two images of one name: {files[name].name} and {path.name}")
        files[name] = path
    return files


def fitted(image, size):
    """The middle of a (1, 3, H, W) image at the wanted (height, width): cropped to its shape, resized with Lanczos.

    Returns (3, height, width) in [-1, 1] on the 8-bit grid, as a saved result is.
    """
    picture = Image.fromarray(to_uint8(image))
    height, width = size
    scale = min(picture.width / width, picture.height / height)
    across, down = round(width * scale), round(height * scale)
    left, top = (picture.width - across) // 2, (picture.height - down) // 2
    picture = picture.crop((left, top, left + across, top + down))
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(127.5).sub(1)


class Cases:
    """Images with their masks, by name.

    data          SCENES (held-out landscapes), or a folder of images, taken in the order of their names.
    count         how many; None: all of the folder, 32 scenes.
    size          (height, width); every image is cropped and resized to it.
    mask_kind     see `gradpaint.masks.make_mask`, whose options `mask_details` are.
    mask_seed     another seed, other masks for the same images.
    mask_folder   masks from files instead, white = repaint, of an image's name and size.
    """

    def __init__(self, data, size, count=None, mask_kind="thick", mask_details=None, mask_seed=0, mask_folder=None):
        if count is not None and count < 1:
            raise ValueError(f"number of images is {count}; it must be at least 1")
        self.size, self.mask_kind, self.mask_seed = tuple(size), mask_kind, mask_seed
        self.mask_details = dict(mask_details or {})
        unknown = sorted(set(self.mask_details) - set(mask_options(mask_kind)))
        if unknown:
            allowed = ", ".join(mask_options(mask_kind)) or "none"
            raise ValueError(f"option {unknown[0]!r} is unknown for a {mask_kind} mask; it takes {allowed}")
        if str(data) == SCENES:
            if self.size[0] != self.size[1]:
                raise ValueError(f"size is {self.size[0]}x{self.size[1]}, but scenes are square")
            count = 32 if count is None else count
            if count > len(HELD_OUT_SEEDS):
                raise ValueError(f"number of images is {count}, but there are {len(HELD_OUT_SEEDS)} held-out scenes")
            self._files = {f"scene_{seed}": seed for seed in HELD_OUT_SEEDS[:count]}
        else:
            files = named_files(data)
            if len(files) < (count or 1):
                raise ValueError(f"number of images is {count or 1}, but {data} has {len(files)} images")
            self._files = dict(list(files.items())[:count])
        self._masks = None if mask_folder is None else chosen_files(mask_folder, self.names, "the folder of masks")

    @property
    def names(self):
        return list(self._files)

    def images(self, names):
        """(len(names), 3, H, W) in [-1, 1]."""
        return torch.stack([self._image(self._files[name]) for name in names])

    def _image(self, source):
        if isinstance(source, int):
            return landscapes([source], self.size[0])[0]
        return fitted(load_image(source), self.size)

    def masks(self, names):
        """(len(names), 1, H, W), 1 = repaint."""
        return torch.cat([self._mask(name) for name in names])

    def _mask(self, name):
        if self._masks is not None:
            return (load_mask(self._masks[name], size=self.size) > 0.5).float()
        first = stream_seed(self.mask_seed, name)
        return masks_above(MIN_COVERAGE, self.mask_kind, *self.size, 1, first_seed=first, **self.mask_details)


def chosen_files(folder, names, what, size=None):
    """name -> path for exactly these names, of (height, width) `size` if given.

    ValueError that lists those that `what`, a folder, lacks, or names the first of another size.
    """
    files = named_files(folder)
    missing = [name for name in names if name not in files]
    if missing:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ValueError(
            f"{folder}, {what}, lacks {len(missing)} of {len(names)} images: {some}. "
            "A result has the name of its image, in any picture format"
        )
    for name in names if size is not None else ():
        with Image.open(files[name]) as picture:
            if picture.size != (size[1], size[0]):
                raise ValueError(
                    f"{files[name]} is {picture.width}x{picture.height} pixels, but the images are "
                    f"{size[1]}x{size[0]} (width x height)"
                )
    return {name: files[name] for name in names}
