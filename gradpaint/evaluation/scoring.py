"""Scores of finished pictures, kept per image in scores.jsonl: of our own methods and of any other's alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..image.files import load_image, load_mask
from .diversity import pairwise_lpips, pairwise_mse
from .metrics import known_error, lpips, masked_mse, masked_psnr, seam_energy
from .records import Records

KNOWN_TOLERANCE = 2 / 127.5  # a result's known pixels may differ by 2 of 255 before it is remarked on


@dataclass(frozen=True)
class Source:
    """Finished pictures of one method: name of the method -> seed -> name of the image -> file."""

    label: str
    files: dict

    def complete(self, names, seeds=None):
        """Those of `names` for which all this source's seeds are there."""
        return [name for name in names if all(name in files for files in self.files.values())]


def lpips_problem(net, size):
    """Why LPIPS cannot be computed here, as a sentence; None if it can. net "none": no sentence, just ""."""
    if net == "none":
        return ""
    try:
        zeros = torch.zeros(1, 3, *size)
        lpips(zeros, zeros, net=net)
    except (ImportError, RuntimeError, ValueError) as error:
        return " ".join(str(error).split())
    return None


class Scorer:
    """Scores pictures against their originals, each once.

    folder        has inputs/ and masks/ (see `runner`), and gets scores.jsonl and diversity.jsonl.
    net           LPIPS network, or None for no LPIPS.  device: where it runs.
    """

    def __init__(self, folder, net="squeeze", device="cpu"):
        folder = Path(folder)
        self.inputs, self.masks, self.net, self.device = folder / "inputs", folder / "masks", net, device
        self.records = Records(folder / "scores.jsonl", ("method", "seed", "name"))
        self.diversity = Records(folder / "diversity.jsonl", ("method", "name"))

    def case(self, name):
        """The original (1, 3, H, W) and its mask (1, 1, H, W)."""
        image = load_image(self.inputs / f"{name}.png")
        return image, load_mask(self.masks / f"{name}.png", size=image.shape[2:])

    def score(self, source, names):
        """Score those of `names` that the source has and that have no score yet."""
        for seed, files in source.files.items():
            for name in names:
                if name in files and not self._current(source.label, seed, name, files[name]):
                    self.records.add(self._scores(source.label, seed, name, files[name]))

    def _current(self, label, seed, name, path):
        row = self.records.get(label, seed, name)
        return row is not None and row["stamp"] == _stamp(path) and (self.net is None or f"lpips_{self.net}" in row)

    def _scores(self, label, seed, name, path):
        result = load_image(path)
        image, mask = self.case(name)
        if result.shape != image.shape:
            sizes = (f"{x.shape[3]}x{x.shape[2]}" for x in (result, image))
            raise ValueError("{} is {} pixels, but its original is {} (width x height)".format(path, *sizes))
        row = {
            "method": label,
            "seed": seed,
            "name": name,
            "stamp": _stamp(path),
            "masked_mse": masked_mse(result, image, mask).item(),
            "masked_psnr": masked_psnr(result, image, mask).item(),
            "seam_energy": seam_energy(result, mask).item(),
            "true_seam_energy": seam_energy(image, mask).item(),
            "known_error": known_error(result, image, mask).item(),
        }
        if self.net is not None:
            row[f"lpips_{self.net}"] = lpips(result.to(self.device), image.to(self.device), net=self.net).item()
        return row

    def score_diversity(self, source, names):
        """For each of `names` that has two samples or more: the mean distance between them."""
        if len(source.files) < 2:
            return
        for name in source.complete(names):
            paths = [files[name] for files in source.files.values()]
            stamp, row = [_stamp(path) for path in paths], self.diversity.get(source.label, name)
            if row is not None and row["stamp"] == stamp and (self.net is None or f"lpips_{self.net}" in row):
                continue
            samples = torch.cat([load_image(path) for path in paths])
            row = {
                "method": source.label,
                "name": name,
                "stamp": stamp,
                "mse": pairwise_mse(samples, self.case(name)[1]),
            }
            if self.net is not None:
                row[f"lpips_{self.net}"] = pairwise_lpips(samples.to(self.device), self.net)
            self.diversity.add(row)


def _stamp(path):
    """Tells a file from another one under its name."""
    status = Path(path).stat()
    return f"{status.st_size}-{status.st_mtime_ns}"
