"""The demonstration behind `gradpaint demo`: the bundled model repaints scenes it has never seen."""

import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import torch

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
from ..sampling.inpaint import inpaint
from ..sampling.sigmas import spaced_sigmas

METHODS = {"combine_image": "combine_image", "gradpaint": "GradPaint"}  # library name -> label on the sheet
MIN_COVERAGE = 0.1  # masks with a smaller hole show little and are passed over
BATCH = 4  # images per run; results are on disk after each


def run_demo(out, seed=0, steps=30, count=8, mask_kind="thick", sampler="ddpm", device="cpu", progress=True):
    """Inpaint `count` held-out scenes with combine_image and GradPaint from the same noise; write everything to `out`.

    Writes contact_sheet.png, loss.png, metrics.json and results/*.png. Finished images are on disk after each batch
    of 4. Returns the content of metrics.json as a dict. Bad arguments raise ValueError.
    """
    if not 1 <= count <= 1000:
        raise ValueError(f"number of images is {count}; it must lie between 1 and 1000")
    if not 0 <= seed < 10_000:
        raise ValueError(f"seed is {seed}; it must lie between 0 and 9999")
    out = Path(out)
    denoiser = load_denoiser(bundled_model_path(), device=device)
    size = denoiser.image_size
    seeds = [HELD_OUT_SEEDS[(1000 * seed + i) % len(HELD_OUT_SEEDS)] for i in range(count)]
    images = landscapes(seeds, size)
    masks = masks_above(MIN_COVERAGE, mask_kind, size, size, count, first_seed=1000 * seed)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    sigmas = spaced_sigmas(denoiser.sigmas, steps)
    settings = GuidanceSettings()
    results = {name: [] for name in METHODS}
    curves = {name: [] for name in METHODS}
    cost = {name: {"evaluations": 0, "backwards": 0, "seconds": 0.0} for name in METHODS}
    guided = []
    for start in range(0, count, BATCH):
        part = slice(start, min(start + BATCH, count))
        y, mask = images[part].to(device), masks[part].to(device)
        for name in METHODS:
            started = time.perf_counter()
            result = inpaint(
                denoiser,
                y,
                mask,
                sigmas=sigmas,
                noise=noise[part].to(device),
                seed=seed + start,
                method=name,
                sampler=sampler,
                settings=settings,
                progress=progress,
                keep_x0=True,
            )
            cost[name]["seconds"] += time.perf_counter() - started
            cost[name]["evaluations"] += result.evaluations * len(y)
            cost[name]["backwards"] += result.backwards * len(y)
            results[name].append(result.image.cpu())
            curves[name].append(torch.stack([known_loss(r.x0_hat, images[part], masks[part]) for r in result.record]))
            guided = [r.guided for r in result.record] if name == "gradpaint" else guided
            for i, image in enumerate(result.image):
                save_image(image, out / "results" / f"{start + i:02d}_{name}.png")
        for i in range(part.start, part.stop):
            save_image(images[i], out / "results" / f"{i:02d}_input.png")
            save_mask(masks[i : i + 1], out / "results" / f"{i:02d}_mask.png")
    results = {name: torch.cat(parts) for name, parts in results.items()}

    masked = checkerboard(images, masks)
    rows = [[images[i], masked[i], *(results[name][i] for name in METHODS)] for i in range(count)]
    save_image(contact_sheet(rows, ["input", "masked", *METHODS.values()]), out / "contact_sheet.png")
    mean_curves = {METHODS[name]: torch.cat(parts, dim=1).mean(dim=1).tolist() for name, parts in curves.items()}
    title = "How far the model's estimate of the image is from the known pixels"
    save_image(loss_plot(mean_curves, guided, title, y_label="MSE over known pixels"), out / "loss.png")

    metrics = {
        "gradpaint": __version__,
        "torch": torch.__version__,
        "arguments": {
            "seed": seed,
            "steps": steps,
            "n": count,
            "mask": mask_kind,
            "sampler": sampler,
            "device": str(device),
        },
        "settings": asdict(settings),
        "scene_seeds": seeds,
        "coverage": masks.mean(dim=(1, 2, 3)).tolist(),
        "methods": {name: method_metrics(results[name], images, masks) | cost[name] for name in METHODS},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics


def known_loss(x0_hat, images, masks):
    """Mean squared error over the known pixels, (B,): eq. 5 as a mean."""
    return masked_mse(x0_hat.cpu().float(), images, 1 - masks)


def method_metrics(results, images, masks):
    """Scores of one method over all images: means with standard errors, and the values per image."""
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


def _finite(value):
    return value if math.isfinite(value) else None


def metrics_table(metrics):
    """The demo's metrics as lines of text."""
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
