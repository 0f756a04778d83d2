"""`gradpaint demo`: the bundled model repaints scenes that it has never seen."""

from __future__ import annotations

import functools
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from ..drawing.contact_sheet import checkerboard, contact_sheet
from ..drawing.plots import loss_plot
from ..evaluation.metrics import known_error, masked_mse, masked_psnr, mean_estimate, pooled_ratio, seam_energy
from ..guided_diffusion import load_denoiser
from ..image.files import save_image, save_mask
from ..masks import masks_above
from ..method.settings import GuidanceSettings
from ..models import bundled_model_path
from ..models.scenes import HELD_OUT_SEEDS, landscapes
from ..sampling.inpaint import InpaintResult, inpaint
from ..sampling.sigmas import spaced_sigmas

METHODS = {"combine_image": "combine_image", "gradpaint": "GradPaint"}  # library name -> label on the sheet
MIN_COVERAGE = 0.1  # masks with a smaller hole show little and are skipped
BATCH = 4  # images per run; results are written after each


class _Scenes(NamedTuple):
    """What is repainted: seeds of the scenes, images (N, 3, H, W), masks (N, 1, H, W) and noise like the images."""

    seeds: list[int]
    images: Tensor
    masks: Tensor
    noise: Tensor

    def batch(self, start: int) -> _Scenes:
        """Return `BATCH` scenes from this one on, or fewer at the end."""
        places = slice(start, start + BATCH)
        return _Scenes(self.seeds[places], self.images[places], self.masks[places], self.noise[places])


@dataclass
class _MethodRun:
    """What one method has done so far: a tensor per batch, costs summed over images."""

    images: list[Tensor] = field(default_factory=list)  # (B, 3, H, W)
    curves: list[Tensor] = field(default_factory=list)  # (steps, B), see `known_loss`
    guided: list[bool] = field(default_factory=list)  # per step
    evaluations: int = 0
    backwards: int = 0
    seconds: float = 0.0

    def add(self, result: InpaintResult, batch: _Scenes, seconds: float) -> None:
        """Add the result for a batch."""
        self.images.append(result.image.cpu())
        losses = [
            known_loss(step.x0_hat, batch.images, batch.masks) for step in result.record if step.x0_hat is not None
        ]
        self.curves.append(torch.stack(losses))
        self.guided = [step.guided for step in result.record]
        self.evaluations += result.evaluations * len(batch.seeds)
        self.backwards += result.backwards * len(batch.seeds)
        self.seconds += seconds

    def cost(self) -> dict[str, float]:
        return {"evaluations": self.evaluations, "backwards": self.backwards, "seconds": self.seconds}


def run_demo(
    out: str | Path,
    seed: int = 0,
    steps: int = 30,
    count: int = 8,
    mask_kind: str = "thick",
    sampler: str = "ddpm",
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Inpaint held-out scenes with combine_image and GradPaint from the same noise.

    Writes contact_sheet.png, loss.png, metrics.json and results/*.png. Finished images are written after each batch.

    Args:
        out: folder to write to.
        seed: 0 to 9999, for scenes, masks and noise.
        steps: sampling steps.
        count: number of scenes, 1 to 1000.
        mask_kind: see `masks.make_mask`.
        sampler: "ddpm" or "ddim".
        device: where the model runs.
        progress: show progress bars.

    Returns:
        The contents of metrics.json.

    Raises:
        ValueError: an argument is out of range.
    """
    _check_range("number of images", count, 1, 1000)
    _check_range("seed", seed, 0, 9999)
    out = Path(out)
    denoiser = load_denoiser(bundled_model_path(), device=device)
    scenes = _scenes(denoiser.image_size, seed, count, mask_kind)
    settings = GuidanceSettings()
    runs = {name: _MethodRun() for name in METHODS}
    repaint = functools.partial(
        inpaint,
        denoiser,
        sigmas=spaced_sigmas(denoiser.sigmas, steps),
        sampler=sampler,
        settings=settings,
        progress=progress,
        keep_x0=True,
    )
    for start in range(0, count, BATCH):
        batch = scenes.batch(start)
        y, mask, noise = (values.to(device) for values in batch[1:])
        for name, run in runs.items():
            started = time.perf_counter()
            result = repaint(y, mask, noise=noise, seed=seed + start, method=name)
            run.add(result, batch, time.perf_counter() - started)
        _write_batch(out / "results", start, batch, runs)

    arguments: dict[str, int | str] = dict(
        seed=seed, steps=steps, n=count, mask=mask_kind, sampler=sampler, device=str(device)
    )
    return _write_summary(out, scenes, runs, arguments, settings)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must be from {low} to {high}")


def _write_summary(
    out: Path, scenes: _Scenes, runs: dict[str, _MethodRun], arguments: dict[str, int | str], settings: GuidanceSettings
) -> dict[str, Any]:
    """Draw and score all results, and return the contents of metrics.json."""
    results = {name: torch.cat(run.images) for name, run in runs.items()}
    save_image(_sheet(scenes, results), out / "contact_sheet.png")
    save_image(_loss_curves(runs), out / "loss.png")
    metrics = {
        "gradpaint": __version__,
        "torch": torch.__version__,
        "arguments": arguments,
        "settings": asdict(settings),
        "scene_seeds": scenes.seeds,
        "coverage": scenes.masks.mean(dim=(1, 2, 3)).tolist(),
        "methods": {
            name: method_metrics(results[name], scenes.images, scenes.masks) | run.cost() for name, run in runs.items()
        },
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics


def _scenes(size: int, seed: int, count: int, mask_kind: str) -> _Scenes:
    seeds = [HELD_OUT_SEEDS[(1000 * seed + i) % len(HELD_OUT_SEEDS)] for i in range(count)]
    images = landscapes(seeds, size)
    masks = masks_above(MIN_COVERAGE, mask_kind, size, size, count, first_seed=1000 * seed)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return _Scenes(seeds, images, masks, noise)


def _write_batch(folder: Path, start: int, batch: _Scenes, runs: dict[str, _MethodRun]) -> None:
    """Write the images of a batch that starts at this scene, with the methods' latest results."""
    for i, (image, mask) in enumerate(zip(batch.images, batch.masks)):
        save_image(image, folder / f"{start + i:02d}_input.png")
        save_mask(mask[None], folder / f"{start + i:02d}_mask.png")
        for name, run in runs.items():
            save_image(run.images[-1][i], folder / f"{start + i:02d}_{name}.png")


def _sheet(scenes: _Scenes, results: dict[str, Tensor]) -> Image.Image:
    columns = [scenes.images, checkerboard(scenes.images, scenes.masks), *results.values()]
    return contact_sheet(list(zip(*columns)), ["input", "masked", *(METHODS[name] for name in results)])


def _loss_curves(runs: dict[str, _MethodRun]) -> Image.Image:
    curves = {METHODS[name]: torch.cat(run.curves, dim=1).mean(dim=1).tolist() for name, run in runs.items()}
    title = "Distance of the model's estimate from the known pixels"
    return loss_plot(curves, runs["gradpaint"].guided, title, y_label="MSE over known pixels")


def known_loss(x0_hat: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """Return each image's mean squared error over the known pixels, (B,): eq. 5 as a mean."""
    return masked_mse(x0_hat.cpu().float(), images, 1 - masks)


def method_metrics(results: Tensor, images: Tensor, masks: Tensor) -> dict[str, Any]:
    """Score one method's results, (N, 3, H, W): means with standard errors, and the values for each image."""
    mse, psnr = masked_mse(results, images, masks), masked_psnr(results, images, masks)
    energy, truth = seam_energy(results, masks), seam_energy(images, masks)
    return {
        "masked_mse": mse.mean().item(),
        "masked_mse_standard_error": _finite(mean_estimate(mse).error),
        "masked_psnr": psnr.mean().item(),
        "seam_ratio": pooled_ratio(energy, truth),
        "known_error": known_error(results, images, masks).max().item(),
        "per_image": {
            "masked_mse": mse.tolist(),
            "masked_psnr": psnr.tolist(),
            "seam_energy": energy.tolist(),
            "true_seam_energy": truth.tolist(),
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def metrics_table(metrics: dict[str, Any]) -> str:
    """Format the demo's metrics as a table of text."""
    lines = [f"{'':15}{'masked MSE':>12}{'PSNR (dB)':>11}{'seam (1 = ideal)':>18}{'evaluations':>13}{'seconds':>9}"]
    count = metrics["arguments"]["n"]
    for name, label in METHODS.items():
        row = metrics["methods"][name]
        evaluations = f"{row['evaluations'] // count} ({row['backwards'] // count} bwd)"
        lines.append(
            f"{label:15}{row['masked_mse']:12.4f}{row['masked_psnr']:11.2f}{row['seam_ratio']:18.2f}"
            f"{evaluations:>13}{row['seconds']:9.1f}"
        )
    return "\n".join(lines)
