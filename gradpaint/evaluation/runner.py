"""Runs methods over images into a folder, and continues where an interrupted run ended.

The folder:

    config.json                     what all results there have in common
    inputs/NAME.png, masks/NAME.png the images and masks, for methods that run elsewhere
    images/METHOD/seedS/NAME.png    the results
    runs.jsonl                      one line per result: its cost
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..image.files import save_image, save_mask
from ..latent_diffusion import LatentDiffusionDenoiser, inpaint_image
from ..latent_diffusion.inpaint import latent_shape
from ..method.settings import GuidanceSettings
from ..sampling.inpaint_image import reflect_pad
from ..sampling.methods import METHODS
from ..sampling.run import InpaintResult
from ..sampling.sigmas import run_sigmas
from .conditioning import Labeled
from .dataset import Cases, stream_seed
from .methodspec import MethodSpec
from .records import Records, replace_file

# Callable (x, sigma) -> x0_hat with .sigmas; .size_multiple and a `label` argument where it has them. Of pixels, unless
# it is a LatentDiffusionDenoiser.
Denoiser = Any
Codec = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]  # encode, decode
Noise = Callable[[torch.Size], Tensor]  # a state's shape without the batch -> noise of the whole batch


@dataclass(frozen=True)
class Setup:
    """What every method of a run shares; device is where the denoiser is, codec latent_copy's: None, the denoiser's."""

    steps: int = 30
    sampler: str = "ddpm"
    settings: GuidanceSettings = GuidanceSettings()
    batch: int = 4
    device: torch.device | str = "cpu"
    codec: Codec | None = None


class RunFolder:
    """The files of a run."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.records = Records(self.folder / "runs.jsonl", ("method", "seed", "name"))

    def path(self, spec: MethodSpec, seed: int, name: str) -> Path:
        """Where a result goes."""
        return self.folder / "images" / spec.slug / f"seed{seed}" / f"{name}.png"

    def input_path(self, name: str) -> Path:
        """Where an image goes."""
        return self.folder / "inputs" / f"{name}.png"

    def mask_path(self, name: str) -> Path:
        """Where its mask goes."""
        return self.folder / "masks" / f"{name}.png"

    def done(self, spec: MethodSpec, seed: int, name: str) -> bool:
        """Whether that result is there, made by the same recipe."""
        row = self.records.get(spec.label, seed, name)
        return row is not None and row.get("recipe") == spec.recipe and self.path(spec, seed, name).is_file()

    def started(self, names: Sequence[str]) -> list[str]:
        """Those of `names` whose input and mask are on disk."""
        return [name for name in names if self.input_path(name).is_file() and self.mask_path(name).is_file()]

    def missing(self, specs: Sequence[MethodSpec], seeds: Sequence[int], names: Sequence[str]) -> int:
        """Number of results still to be made."""
        return sum(not self.done(spec, seed, name) for spec in specs for seed in seeds for name in names)


def run(
    folder: RunFolder,
    cases: Cases,
    specs: Sequence[MethodSpec],
    seeds: Sequence[int],
    denoiser: Denoiser,
    setup: Setup,
    on_result: Callable[[MethodSpec], object] | None = None,
    on_batch: Callable[[list[str]], object] | None = None,
) -> None:
    """Make every missing result.

    Batch by batch, with all seeds and methods for each batch, so that an interrupted run can be compared. Each result
    is on disk before the next batch starts. A batch that was interrupted runs again with the same noise, so results do
    not depend on interruptions.

    Args:
        on_result: called for each result written.
        on_batch: called with its names when a batch is complete.
    """
    if setup.batch < 1:
        raise ValueError(f"batch is {setup.batch}; it must be at least 1")
    names = cases.names
    for start in range(0, len(names), setup.batch):
        group = names[start : start + setup.batch]
        batch = Batch(folder, cases, group, denoiser, setup)
        for seed in seeds:
            for spec in specs:
                if not all(folder.done(spec, seed, name) for name in group):
                    batch.run(spec, seed, on_result)
        if on_batch is not None:
            batch.write_inputs_if_missing()
            on_batch(group)


class Batch:
    """Images that are run together; they are read and written once, when the first method needs them."""

    def __init__(self, folder: RunFolder, cases: Cases, names: list[str], denoiser: Denoiser, setup: Setup):
        self.folder, self.cases, self.names, self.setup = folder, cases, names, setup
        self.denoiser = denoiser
        self._tensors: tuple[Tensor, Tensor] | None = None

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and masks (B, 1, H, W)."""
        if self._tensors is None:
            self._tensors = self.cases.images(self.names), self.cases.masks(self.names)
            _write_inputs(self.folder, self.names, *self._tensors)
        return self._tensors

    def write_inputs_if_missing(self) -> None:
        """For a batch whose results were all there."""
        started = self.folder.started(self.names)
        names = [name for name in self.names if name not in started]
        if self._tensors is None and names:
            _write_inputs(self.folder, names, self.cases.images(names), self.cases.masks(names))

    def run(self, spec: MethodSpec, seed: int, on_result: Callable[[MethodSpec], object] | None) -> None:
        """Run one method with one seed, and write the results that are not there yet."""
        missing = [name for name in self.names if not self.folder.done(spec, seed, name)]
        labels = self.cases.labels(self.names)
        result, seconds = inpaint_batch(self.names, *self.tensors(), spec, seed, self.denoiser, self.setup, labels)
        for index, name in enumerate(self.names):
            if name not in missing:
                continue
            image = result.image[index]
            replace_file(self.folder.path(spec, seed, name), functools.partial(save_image, image))
            self.folder.records.add(
                {
                    "method": spec.label,
                    "seed": seed,
                    "name": name,
                    "recipe": spec.recipe,
                    "batch": self.names[0],
                    "forwards": result.evaluations - result.backwards,
                    "backwards": result.backwards,
                    "seconds": seconds / len(self.names),
                    "skipped_nudges": result.skipped,
                }
            )
            if on_result is not None:
                on_result(spec)


def _write_inputs(folder: RunFolder, names: Sequence[str], images: Tensor, masks: Tensor) -> None:
    for name, image, mask in zip(names, images, masks):
        replace_file(folder.input_path(name), functools.partial(save_image, image))
        replace_file(folder.mask_path(name), functools.partial(save_mask, mask[None]))


def inpaint_batch(
    names: Sequence[str],
    images: Tensor,
    masks: Tensor,
    spec: MethodSpec,
    seed: int,
    denoiser: Denoiser,
    setup: Setup,
    labels: Sequence[int] | None = None,
    **extras: Any,
) -> tuple[InpaintResult, float]:
    """Run one method on one batch, with nothing of the image under the hole.

    Args:
        denoiser: of pixels or, with the images encoded and the result decoded, of latents; None for an oracle.
        labels: a class per image, for a class-conditional denoiser.
        extras: further arguments of the method, e.g. keep_x0.

    Returns:
        The result, on the CPU, and seconds: of the processor on a CPU, where other programs may run, else by the clock.
    """
    latent = isinstance(denoiser, LatentDiffusionDenoiser)
    if latent and not spec.latent:
        raise ValueError(f"the model is one of latents, but method {spec.label!r} is not: take its on_latents()")
    inpaint: Callable[..., InpaintResult] = _inpaint_latents if latent else _inpaint_pixels
    clock = time.process_time if torch.device(setup.device).type == "cpu" else time.perf_counter
    started = clock()
    result = inpaint(
        denoiser if labels is None else Labeled(denoiser, labels, setup.device),
        images,
        masks,
        lambda shape: torch.stack([_noise(shape, stream_seed(seed, name)) for name in names]),
        spec,
        setup,
        seed=stream_seed(seed, names[0], "steps"),
        sampler=setup.sampler,
        settings=spec.settings(setup.settings),
        codec=setup.codec,
        **spec.options,
        **extras,
    )
    return result, clock() - started


def _inpaint_pixels(
    denoiser: Denoiser, images: Tensor, masks: Tensor, noise: Noise, spec: MethodSpec, setup: Setup, **arguments: Any
) -> InpaintResult:
    height, width = images.shape[2:]
    multiple = getattr(denoiser, "size_multiple", 1)
    image, mask = (reflect_pad(tensor, multiple).to(setup.device) for tensor in (images, masks))
    result = METHODS[spec.name].run(
        denoiser,
        torch.where(mask == 0, image, torch.zeros_like(image)),
        mask,
        sigmas=None if denoiser is None else run_sigmas(denoiser, spec.steps or setup.steps, setup.sampler),
        noise=noise(image.shape[1:]).to(image),
        image=image,
        **arguments,
    )
    result.image = result.image[..., :height, :width].cpu()
    return result


def _inpaint_latents(
    denoiser: LatentDiffusionDenoiser,
    images: Tensor,
    masks: Tensor,
    noise: Noise,
    spec: MethodSpec,
    setup: Setup,
    **arguments: Any,
) -> InpaintResult:
    return inpaint_image(
        denoiser,
        images,
        masks,
        method=spec.name,
        steps=spec.steps or setup.steps,
        device=setup.device,
        noise=noise(torch.Size(latent_shape(denoiser, *images.shape[2:]))),
        progress=False,
        **arguments,
    )


def _noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
