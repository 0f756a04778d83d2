"""The images, masks, classes and captions of an evaluation, read one batch at a time.

What belongs to an image (its mask, its noise) depends on its name and the seeds alone, so more images, other methods or
an interruption change nothing for those already done.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..image.files import load_image, load_mask, to_uint8
from ..masks import mask_options, masks_above
from ..models.scenes import HELD_OUT_SEEDS, landscapes
from .conditioning import FOLDERS, folder_labels, read_column, read_labels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SCENES = "scenes"  # the name of the procedural data set
DEFAULT_SCENES = 32
MIN_COVERAGE = 0.01  # LaMa's generators now and then leave a hole of a few pixels, which tells nothing


def stream_seed(*numbers_and_names: int | str) -> int:
    """A seed for a generator, 0 .. 2^32 - 1: distinct inputs, independent streams."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode("utf-8")) for part in numbers_and_names]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def named_files(folder: Path | str) -> dict[str, Path]:
    """Name -> path of every image under `folder`, sorted; the name is the path without suffix, "/" as "__"."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of images")
    files: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()):
        name = "__".join(path.relative_to(folder).with_suffix("").parts)
        if name in files:
            raise ValueError(f"{folder} has two images of one name: {files[name].name} and {path.name}")
        files[name] = path
    return files


def fitted(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of a (1, 3, H, W) image at the wanted (height, width): cropped to its shape, resized with Lanczos.

    Returns:
        (3, height, width) in [-1, 1] on the 8-bit grid, as a saved result is.
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
    """Images with their masks and, where they have them, classes and captions, by name.

    Args:
        data: SCENES (held-out landscapes), or a folder of images, taken in the order of their names.
        size: (height, width); every image is cropped and resized to it.
        count: how many; None: all of the folder, 32 scenes.
        mask_kind: see `gradpaint.masks.make_mask`, whose options `mask_details` are.
        mask_seed: another seed, other masks for the same images.
        mask_folder: masks from files instead, white = repaint, of an image's name and size.
        labels: a CSV with the columns file and label, or FOLDERS, see `conditioning`.
        num_classes: of the model, to check FOLDERS.
        captions: a CSV with the columns file and caption.
    """

    def __init__(
        self,
        data: Path | str,
        size: Sequence[int],
        count: int | None = None,
        mask_kind: str = "thick",
        mask_details: Mapping[str, Any] | None = None,
        mask_seed: int = 0,
        mask_folder: Path | None = None,
        labels: Path | str | None = None,
        num_classes: int | None = None,
        captions: Path | None = None,
    ):
        if count is not None and count < 1:
            raise ValueError(f"number of images is {count}; it must be at least 1")
        self.size, self.mask_kind, self.mask_seed = (size[0], size[1]), mask_kind, mask_seed
        self.mask_details = dict(mask_details or {})
        unknown = sorted(set(self.mask_details) - set(mask_options(mask_kind)))
        if unknown:
            allowed = ", ".join(mask_options(mask_kind)) or "none"
            raise ValueError(f"option {unknown[0]!r} is unknown for a {mask_kind} mask; it takes {allowed}")
        self._files: dict[str, Path | int] = {}
        if str(data) == SCENES:
            self._files.update(self._scenes(count, labels, captions))
        else:
            self._files.update(_first_files(data, count))
        self._labels = None if labels is None else self._read_labels(Path(data), labels, num_classes)
        self.captions = None if captions is None else read_column(Path(captions), "caption", self.names)
        self._masks = None if mask_folder is None else chosen_files(mask_folder, self.names, "the folder of masks")

    def _scenes(self, count: int | None, labels: object, captions: object) -> dict[str, int]:
        if labels is not None or captions is not None:
            raise ValueError("--labels and --captions need --data; the held-out scenes have neither")
        if self.size[0] != self.size[1]:
            raise ValueError(f"size is {self.size[0]}x{self.size[1]}, but scenes are square")
        count = DEFAULT_SCENES if count is None else count
        if count > len(HELD_OUT_SEEDS):
            raise ValueError(f"number of images is {count}, but there are {len(HELD_OUT_SEEDS)} held-out scenes")
        return {f"scene_{seed}": seed for seed in HELD_OUT_SEEDS[:count]}

    def _read_labels(self, root: Path, labels: Path | str, num_classes: int | None) -> dict[str, int]:
        if str(labels) != FOLDERS:
            return read_labels(Path(labels), self.names)
        files = {name: path for name, path in self._files.items() if isinstance(path, Path)}
        return folder_labels(files, root, num_classes)

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def labels(self, names: Sequence[str]) -> list[int] | None:
        """A class per image; None where there are none."""
        return None if self._labels is None else [self._labels[name] for name in names]

    def conditions(self) -> str:
        """Classes and captions as a CSV, for methods that run elsewhere; "" where there are neither."""
        columns = {"label": self._labels, "caption": self.captions}
        given = {name: values for name, values in columns.items() if values is not None}
        if not given:
            return ""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *given])
        writer.writerows([f"{name}.png", *(values[name] for values in given.values())] for name in self.names)
        return text.getvalue()

    def images(self, names: Sequence[str]) -> Tensor:
        """(len(names), 3, H, W) in [-1, 1]."""
        return torch.stack([self._image(self._files[name]) for name in names])

    def _image(self, source: Path | int) -> Tensor:
        if isinstance(source, int):
            return landscapes([source], self.size[0])[0]
        return fitted(load_image(source), self.size)

    def masks(self, names: Sequence[str]) -> Tensor:
        """(len(names), 1, H, W), 1 = repaint."""
        return torch.cat([self._mask(name) for name in names])

    def _mask(self, name: str) -> Tensor:
        if self._masks is not None:
            return (load_mask(self._masks[name], size=self.size) > 0.5).float()
        first = stream_seed(self.mask_seed, name)
        return masks_above(MIN_COVERAGE, self.mask_kind, *self.size, 1, first_seed=first, **self.mask_details)


def _first_files(data: Path | str, count: int | None) -> dict[str, Path]:
    files = named_files(data)
    if len(files) < (count or 1):
        raise ValueError(f"number of images is {count or 1}, but {data} has {len(files)} images")
    return dict(list(files.items())[:count])


def chosen_files(
    folder: Path | str, names: Sequence[str], what: str, size: tuple[int, int] | None = None
) -> dict[str, Path]:
    """Name -> path for exactly these names, of (height, width) `size` if given.

    Raises:
        ValueError: lists the names that `what`, a folder, lacks, or names the first picture of another size.
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
            if size is not None and picture.size != (size[1], size[0]):
                raise ValueError(
                    f"{files[name]} is {picture.width}x{picture.height} pixels, but the images are "
                    f"{size[1]}x{size[0]} (width x height)"
                )
    return {name: files[name] for name in names}
