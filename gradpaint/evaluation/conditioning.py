"""What an image is conditioned on: its class, from a CSV or its folder's name, and its caption, from a CSV."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

FOLDERS = "folders"  # as a source of labels: the name of each image's folder


class Labeled:
    """A class-conditional denoiser with a class per image of the batch; everything else is the denoiser's own."""

    def __init__(self, denoiser: Any, labels: Sequence[int], device: torch.device | str = "cpu"):
        self.denoiser = denoiser
        self.label: int | Tensor = int(labels[0]) if len(labels) == 1 else torch.tensor(list(labels), device=device)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser(x, sigma, label=self.label)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.denoiser, name)
        return functools.partial(attribute, label=self.label) if name == "evaluate" else attribute


def name_of(file: str) -> str:
    """The name under which `dataset.named_files` knows a file, from its path below the image folder."""
    return "__".join(PurePosixPath(file.replace("\\", "/")).with_suffix("").parts)


def read_column(path: Path, column: str, names: Sequence[str]) -> dict[str, str]:
    """Name -> text, from a CSV with the columns `file` and `column`; file as below the image folder.

    Raises:
        ValueError: the CSV lacks a column, or a line for one of the names.
    """
    if not path.is_file():
        raise ValueError(f"--{column}s {path} does not exist")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"file", column} <= set(reader.fieldnames or ()):
            columns = ", ".join(reader.fieldnames or ()) or "none"
            raise ValueError(f"--{column}s {path} has the columns {columns}; it must have file and {column}")
        texts = {name_of(row["file"] or ""): (row[column] or "").strip() for row in reader}
    missing = [name for name in names if not texts.get(name)]
    if missing:
        raise ValueError(f"--{column}s {path} has no {column} for {len(missing)} of {len(names)} images: {missing[0]}")
    return {name: texts[name] for name in names}


def read_labels(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Name -> class, from a CSV with the columns file and label."""
    labels = {}
    for name, text in read_column(path, "label", names).items():
        if not text.isdecimal():
            raise ValueError(f"--labels {path}: the label of {name} is {text!r}; it must be a whole number from 0")
        labels[name] = int(text)
    return labels


def folder_labels(files: Mapping[str, Path], root: Path, num_classes: int | None) -> dict[str, int]:
    """Name -> class, from the name of each image's top folder below `root`.

    A number is the class itself. Other names (WordNet ids, say) are numbered in sorted order, which is the order of
    guided-diffusion's models, and which is only right if every class has its folder.

    Args:
        files: name -> path.
        num_classes: of the model, to check that.

    Raises:
        ValueError: an image lies in no folder, or folders that are no numbers are not as many as the classes.
    """
    folders = {}
    for name, path in files.items():
        parents = path.relative_to(root).parts[:-1]
        if not parents:
            raise ValueError(f"--labels {FOLDERS}: {path} lies in no folder of its class below {root}")
        folders[name] = parents[0]
    if all(folder.isdecimal() for folder in folders.values()):
        return {name: int(folder) for name, folder in folders.items()}
    present = sorted(path.name for path in root.iterdir() if path.is_dir())
    if num_classes is not None and len(present) != num_classes:
        raise ValueError(
            f"--labels {FOLDERS}: {root} has {len(present)} folders for {num_classes} classes; name the folders by the "
            "classes' numbers, or give a CSV with the columns file and label"
        )
    return {name: present.index(folder) for name, folder in folders.items()}
