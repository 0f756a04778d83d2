"""Runs and draws the paper's figs. 2, 3a, 3b and 10 for one image or several."""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ...drawing.contact_sheet import checkerboard
from ...drawing.paper_figures import estimate_sheet, sample_sheet
from ...drawing.run_pictures import gradient_maps, spread
from ...image.files import load_image, save_image
from ...method.known_region import combine_image
from ...method.record import titles_of
from ...sampling.inpaint_image import reflect_pad
from ..block import Block
from ..methodspec import MethodSpec
from ..records import check_config, replace_file, write_text
from ..runner import Denoiser, RunFolder, inpaint_batch, run
from .layouts import Layout
from .numbers import SOURCE

COLUMNS = 8  # shares of the run that are shown


class FigureRun:
    """One figure, a sheet per image, and a page with all of them.

    What a finished run gave is on disk before the next one starts, and taken from there when the same command runs
    again.

    Args:
        layout: one of `layouts.FIGURES`.
        block: images, masks, methods, seeds and settings.
    """

    def __init__(self, layout: Layout, block: Block):
        self.layout, self.block, self.setup = layout, block, block.setup
        check_config(block.folder / "config.json", block.config())
        self.folder = RunFolder(block.folder)
        self.steps = spread(range(self.setup.steps), COLUMNS)

    def run(self, denoiser: Denoiser, progress: bool = True) -> Path:
        """Make what is missing, draw everything. Returns the page's path."""
        draw = {"fig2": self._estimates, "fig3a": self._gradients, "fig3b": self._estimates, "fig10": self._samples}
        sheets = []
        for name in tqdm(self.block.cases.names, desc=self.layout.name, unit="image", disable=not progress):
            picture = draw[self.layout.name](denoiser, name)
            path = self.block.folder / f"{self.layout.name}_{name}.png"
            sheets.append(replace_file(path, functools.partial(save_image, picture)))
        return self._write_page(sheets)

    def _write_page(self, sheets: list[Path]) -> Path:
        lines = [
            f"# {self.layout.name}: {self.layout.title}",
            "",
            f"As in: {SOURCE}; {self.setup.steps} {self.setup.sampler} steps, seeds "
            f"{', '.join(map(str, self.block.seeds))}.",
            "",
            *(f"* {spec.label}: `{spec.name}` {spec.guidance or ''}".rstrip() for spec in self.block.specs),
            *(f"\n![{path.stem}]({path.name})" for path in sheets),
            *([f"\nCommand: `{self.block.command}`"] if self.block.command else []),
        ]
        return write_text(self.block.folder / f"{self.layout.name}.md", "\n".join(lines) + "\n")

    def _case(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Image (1, 3, H, W), mask (1, 1, H, W), and the image (3, H, W) as it is shown."""
        image, mask = self.block.cases.images([name]), self.block.cases.masks([name])
        return image, mask, checkerboard(image, mask)[0]

    def _estimates(self, denoiser: Denoiser, name: str) -> Image.Image:
        image, mask, masked = self._case(name)
        rows = {spec.label: self._estimates_of(spec, denoiser, name, image, mask) for spec in self.block.specs}
        if self.layout.name == "fig2":
            label, estimates = list(rows.items())[-1]
            rows[f"{label}, collage"] = {
                step: combine_image(estimate[None], image, mask)[0] for step, estimate in estimates.items()
            }
        return estimate_sheet(rows, self.setup.steps, masked)

    def _estimates_of(
        self, spec: MethodSpec, denoiser: Denoiser, name: str, image: Tensor, mask: Tensor
    ) -> dict[int, Tensor]:
        """Step -> x0_hat (3, H, W) of one run, from disk where it was made before."""
        seed = self.block.seeds[0]
        folder = self.block.folder / "estimates" / spec.slug / f"seed{seed}" / name
        paths = {step: folder / f"step_{step + 1:04d}.png" for step in self.steps}
        row = self.folder.records.get(spec.label, seed, name)
        made = row is not None and row["recipe"] == spec.recipe and all(path.is_file() for path in paths.values())
        if not made:
            labels = self.block.cases.labels([name])
            result, _ = inpaint_batch([name], image, mask, spec, seed, denoiser, self.setup, labels, keep_x0=self.steps)
            height, width = image.shape[2:]
            for step, path in paths.items():
                estimate = result.record[step].x0_hat
                assert estimate is not None  # keep_x0 asked for it
                replace_file(path, functools.partial(save_image, estimate[0, :, :height, :width].clamp(-1, 1)))
            self.folder.records.add({"method": spec.label, "seed": seed, "name": name, "recipe": spec.recipe})
        return {step: load_image(path)[0] for step, path in paths.items()}

    def _gradients(self, denoiser: Denoiser, name: str) -> Image.Image:
        image, mask, _ = self._case(name)
        spec, seed, labels = self.block.specs[0], self.block.seeds[0], self.block.cases.labels([name])
        result, _ = inpaint_batch(
            [name], image, mask, spec, seed, denoiser, self.setup, labels, keep_gradients=self.steps
        )
        maps = {step.step: step.maps for step in result.record if step.maps}
        sigmas = {step.step: step.sigma for step in result.record}
        padded = reflect_pad(mask, getattr(denoiser, "size_multiple", 1))
        return gradient_maps(maps, padded, titles=titles_of(result.record), sigmas=sigmas)

    def _samples(self, denoiser: Denoiser, name: str) -> Image.Image:
        """All samples of one image; the runner keeps what is done."""
        block = self.block
        run(self.folder, block.cases, block.specs, block.seeds, denoiser, self.setup)
        rows = {
            spec.label: [load_image(self.folder.path(spec, seed, name))[0] for seed in block.seeds]
            for spec in block.specs
        }
        return sample_sheet(rows, block.seeds, self._case(name)[2])
