"""Runs methods over images into a folder, and goes on where an interrupted run ended.

The folder:

    config.json                     what all results there have in common
    inputs/NAME.png, masks/NAME.png the images and masks, for methods that run elsewhere
    images/METHOD/seedS/NAME.png    the results
    runs.jsonl                      one line per result: its cost
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ..image.files import save_image, save_mask
from ..method.settings import GuidanceSettings
from ..sampling.inpaint_image import reflect_pad
from ..sampling.methods import METHODS
from ..sampling.sigmas import spaced_sigmas
from .dataset import Cases, stream_seed
from .methodspec import MethodSpec
from .records import Records, replace_file


@dataclass(frozen=True)
class Setup:
    """What every method of a run shares. device is where the denoiser is; codec: (encode, decode) or None."""

    steps: int = 30
    sampler: str = "ddpm"
    settings: GuidanceSettings = GuidanceSettings()
    batch: int = 4
    device: object = "cpu"
    codec: tuple | None = None


class RunFolder:
    """The files of a run."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.records = Records(self.folder / "runs.jsonl", ("method", "seed", "name"))

    def path(self, spec: MethodSpec, seed: int, name: str) -> Path:
        return self.folder / "images" / spec.slug / f"seed{seed}" / f"{name}.png"

    def input_path(self, name: str) -> Path:
        return self.folder / "inputs" / f"{name}.png"

    def mask_path(self, name: str) -> Path:
        return self.folder / "masks" / f"{name}.png"

    def done(self, spec: MethodSpec, seed: int, name: str) -> bool:
        row = self.records.get(spec.label, seed, name)
        return row is not None and row.get("recipe") == spec.recipe and self.path(spec, seed, name).is_file()

    def started(self, names):
        """Those of `names` whose input and mask are on disk."""
        return [name for name in names if self.input_path(name).is_file() and self.mask_path(name).is_file()]

    def missing(self, specs, seeds, names) -> int:
        """Number of results still to be made."""
        return sum(not self.done(spec, seed, name) for spec in specs for seed in seeds for name in names)


def run(folder: RunFolder, cases: Cases, specs, seeds, denoiser, setup: Setup, on_result=None, on_batch=None) -> None:
    """Make every missing result.

    Batch by batch, and for each batch all seeds and methods, so that an interrupted run can be compared. Each result
    is on disk before the next batch starts. An interrupted batch is run again as a whole, with the same noise, so the
    results do not depend on interruptions.

    on_result(spec)  called for each result written.  on_batch(names)  called when a batch is complete.
    """
    if setup.batch < 1:
        raise ValueError(f"batch is {setup.batch}; it must be at least 1")
    names = cases.names
    for start in range(0, len(names), setup.batch):
        group = names[start : start + setup.batch]
        images = masks = None
        for seed in seeds:
            for spec in specs:
                missing = [name for name in group if not folder.done(spec, seed, name)]
                if not missing:
                    continue
                if images is None:
                    images, masks = cases.images(group), cases.masks(group)
                    _write_inputs(folder, group, images, masks)
                _run_batch(folder, group, missing, images, masks, spec, seed, denoiser, setup, on_result)
        if on_batch is not None:
            if images is None:
                _write_inputs_if_missing(folder, cases, group)
            on_batch(group)


def _write_inputs(folder, names, images, masks):
    for name, image, mask in zip(names, images, masks):
        replace_file(folder.input_path(name), lambda path, image=image: save_image(image, path))
        replace_file(folder.mask_path(name), lambda path, mask=mask: save_mask(mask[None], path))


def _write_inputs_if_missing(folder, cases, names):
    started = folder.started(names)
    names = [name for name in names if name not in started]
    if names:
        _write_inputs(folder, names, cases.images(names), cases.masks(names))


def _run_batch(folder, group, missing, images, masks, spec, seed, denoiser, setup, on_result):
    result, seconds = inpaint_batch(group, images, masks, spec, seed, denoiser, setup)
    for index, name in enumerate(group):
        if name not in missing:
            continue
        image = result.image[index]
        replace_file(folder.path(spec, seed, name), lambda path, image=image: save_image(image, path))
        folder.records.add(
            {
                "method": spec.label,
                "seed": seed,
                "name": name,
                "recipe": spec.recipe,
                "batch": group[0],
                "forwards": result.evaluations - result.backwards,
                "backwards": result.backwards,
                "seconds": seconds / len(group),
                "skipped_nudges": result.skipped_nudges,
            }
        )
        if on_result is not None:
            on_result(spec)


def inpaint_batch(names, images, masks, spec, seed, denoiser, setup):
    """One method on one batch: (InpaintResult on the CPU, seconds). The hole of the input is blanked.

    seconds: of the processor on the CPU, where other programs may be running, else by the clock.
    """
    multiple = getattr(denoiser, "size_multiple", 1)
    height, width = images.shape[2:]
    image, mask = (reflect_pad(tensor, multiple).to(setup.device) for tensor in (images, masks))
    y = torch.where(mask == 0, image, torch.zeros_like(image))
    noise = torch.stack([_noise(image.shape[1:], stream_seed(seed, name)) for name in names]).to(image)
    clock = time.process_time if torch.device(setup.device).type == "cpu" else time.perf_counter
    started = clock()
    result = METHODS[spec.name].run(
        denoiser,
        y,
        mask,
        sigmas=spaced_sigmas(denoiser.sigmas, spec.steps or setup.steps),
        noise=noise,
        seed=stream_seed(seed, names[0], "steps"),
        sampler=setup.sampler,
        settings=spec.settings(setup.settings),
        image=image,
        codec=setup.codec,
        **spec.options,
    )
    result.image = result.image[..., :height, :width].cpu()
    return result, clock() - started


def _noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
