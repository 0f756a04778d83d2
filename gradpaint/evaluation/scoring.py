"""Scores of finished pictures, kept per image in scores.jsonl: of our own methods and of any other's alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..image.files import load_image, load_mask
from .diversity import feature_variance, pairwise_lpips, pairwise_mse
from .fid import Features
from .metrics import known_error, lpips, masked_mse, masked_psnr, seam_energy
from .records import Records, Row
from .results import MethodScores

KNOWN_TOLERANCE = 2 / 127.5  # a result's known pixels may differ by 2 of 255 before a note says so
SAMPLES_AT_ONCE = 16  # whose features are taken together


@dataclass(frozen=True)
class Source:
    """Finished pictures of one method; files: seed -> name of the image -> file."""

    label: str
    files: dict[int, dict[str, Path]]

    def complete(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that this source has for all its seeds."""
        return [name for name in names if all(name in files for files in self.files.values())]


def lpips_problem(net: str, size: tuple[int, int]) -> str | None:
    """Why LPIPS cannot be computed here, as a sentence; None if it can, "" for net "none"."""
    if net == "none":
        return ""
    try:
        zeros = torch.zeros(1, 3, *size)
        lpips(zeros, zeros, net=net)
    except (ImportError, RuntimeError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def image_scores(results: Tensor, images: Tensor, masks: Tensor, net: str | None = "squeeze") -> dict[str, Tensor]:
    """Metric -> (B,): those of `results.PER_IMAGE`, and "lpips" unless net is None.

    Args:
        results, images: (B, 3, H, W) in [-1, 1].
        masks: (B, 1, H, W), 1 in the hole.
        net: LPIPS network.
    """
    scores = {
        "masked_mse": masked_mse(results, images, masks),
        "masked_psnr": masked_psnr(results, images, masks),
        "seam_energy": seam_energy(results, masks),
        "true_seam_energy": seam_energy(images, masks),
        "known_error": known_error(results, images, masks),
    }
    return scores if net is None else scores | {"lpips": lpips(results, images, net=net)}


def score_tensors(
    label: str,
    results: Tensor,
    images: Tensor,
    masks: Tensor,
    *,
    costs: Mapping[str, float] | None = None,
    net: str | None = "squeeze",
) -> MethodScores:
    """Score results that are in memory, for `results.comparison`.

    Args:
        label: the method.
        results, images, masks, net: see `image_scores`.
        costs: "forwards", "backwards" and "seconds" per image.
    """
    names = [str(index) for index in range(len(images))]
    masks = masks.expand(len(images), *masks.shape[1:])
    totals = {name: torch.tensor([float(cost)]) for name, cost in (costs or {}).items()}
    return MethodScores(label, names, image_scores(results, images, masks, net), totals)


class Scorer:
    """Scores pictures against their originals, each once.

    Args:
        folder: has inputs/ and masks/ (see `runner`), and gets scores.jsonl and diversity.jsonl.
        net: LPIPS network, or None for no LPIPS.
        device: where networks run.
        pairs: score the distance between all pairs of an image's samples; their number grows with its square.
        features: network for the variance of an image's samples (table 8); None: none.
    """

    def __init__(
        self,
        folder: Path | str,
        net: str | None = "squeeze",
        device: torch.device | str = "cpu",
        pairs: bool = True,
        features: Features | None = None,
    ):
        folder = Path(folder)
        self.inputs, self.masks, self.net, self.device = folder / "inputs", folder / "masks", net, device
        self.pairs, self.features = pairs, features
        self.records = Records(folder / "scores.jsonl", ("method", "seed", "name"))
        self.diversity = Records(folder / "diversity.jsonl", ("method", "name"))

    def case(self, name: str) -> tuple[Tensor, Tensor]:
        """The original (1, 3, H, W) and its mask (1, 1, H, W)."""
        image = load_image(self.inputs / f"{name}.png")
        return image, load_mask(self.masks / f"{name}.png", size=image.shape[2:])

    def score(self, source: Source, names: Sequence[str]) -> None:
        """Score those of `names` that the source has and that have no score yet."""
        for seed, files in source.files.items():
            for name in names:
                if name in files and not self._current(source.label, seed, name, files[name]):
                    self.records.add(self._scores(source.label, seed, name, files[name]))

    def _current(self, label: str, seed: int, name: str, path: Path) -> bool:
        row = self.records.get(label, seed, name)
        return row is not None and row["stamp"] == _stamp(path) and (self.net is None or f"lpips_{self.net}" in row)

    def _scores(self, label: str, seed: int, name: str, path: Path) -> Row:
        result = load_image(path)
        image, mask = self.case(name)
        if result.shape != image.shape:
            sizes = (f"{x.shape[3]}x{x.shape[2]}" for x in (result, image))
            raise ValueError("{} is {} pixels, but its original is {} (width x height)".format(path, *sizes))
        row: Row = {"method": label, "seed": seed, "name": name, "stamp": _stamp(path)}
        row |= {metric: values.item() for metric, values in image_scores(result, image, mask, None).items()}
        if self.net is not None:
            row[f"lpips_{self.net}"] = lpips(result.to(self.device), image.to(self.device), net=self.net).item()
        return row

    def score_diversity(self, source: Source, names: Sequence[str]) -> None:
        """Score how much the samples of each of `names` differ, where there are two or more."""
        if len(source.files) < 2:
            return
        for name in source.complete(names):
            paths = [files[name] for files in source.files.values()]
            stamp = hashlib.sha256(" ".join(map(_stamp, paths)).encode()).hexdigest()[:16]
            row = self.diversity.get(source.label, name)
            if row is None or row["stamp"] != stamp:
                row = {"method": source.label, "name": name, "stamp": stamp}
            more = self._diversity(row, name, paths)
            if more:
                self.diversity.add(row | more)

    def _diversity(self, row: Row, name: str, paths: Sequence[Path]) -> Row:
        """What `row` lacks."""
        more: Row = {}
        if self.pairs and ("mse" not in row or (self.net is not None and f"lpips_{self.net}" not in row)):
            samples = torch.cat([load_image(path) for path in paths])
            more["mse"] = pairwise_mse(samples, self.case(name)[1])
            if self.net is not None:
                more[f"lpips_{self.net}"] = pairwise_lpips(samples.to(self.device), self.net)
        if self.features is not None and "feature_variance" not in row:
            more["feature_variance"] = 1e3 * feature_variance(_batches(paths), self.features)
        return more


def _batches(paths: Sequence[Path]) -> Iterator[Tensor]:
    for start in range(0, len(paths), SAMPLES_AT_ONCE):
        yield torch.cat([load_image(path) for path in paths[start : start + SAMPLES_AT_ONCE]])


def _stamp(path: Path) -> str:
    """Tells a file from another one under its name."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"
