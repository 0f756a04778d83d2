"""The edge match on latents: what each way of seeing the latent costs and gains; and on pixels, the paper's weight.

    OMP_NUM_THREADS=1 python benchmarks/alignment_latent.py --model /tmp/latent/latent.pt --assets ../shared \\
        --out benchmarks/results/alignment_latent.md

Latents: a small diffusion model in the space of a tiny FLUX.2 autoencoder (training/train_latent.py), held-out scenes
of 128 x 128. The hole is filled from its surroundings before encoding, and every cell that it touches is repainted, so
that nothing of what was there can be known. Results are decoded in float32, composited with the true known pixels and
compared with the true image. `--pixels` measures on a pixel model instead. Each configuration is kept in --cache as
soon as it is done; the same command goes on where it was stopped. The assets are internal: not in the repository.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import autocast

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

import latent_space  # noqa: E402
from on_tensors import MethodRun, compared, library_method, run_methods, tables  # noqa: E402

from gradpaint.evaluation.tables import markdown  # noqa: E402
from gradpaint.image.files import load_image  # noqa: E402
from gradpaint.masks import make_masks, masks_above  # noqa: E402
from gradpaint.method.decoders import LinearRGB, fit_linear_rgb, view  # noqa: E402
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule  # noqa: E402
from gradpaint.models.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, landscapes  # noqa: E402
from gradpaint.sampling.inpaint import inpaint  # noqa: E402
from gradpaint.sampling.sigmas import spaced_sigmas  # noqa: E402

FIRST_SCENE = 40_000  # within HELD_OUT_SEEDS
MIN_COVERAGE = 0.1
FIT_SCENES = 32
BASE = "off"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--model", type=Path, help="latent.pt of training/train_latent.py")
    parser.add_argument("--pixels", action="store_true", help="the pixel model of the assets instead of the latent one")
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--border", type=int, default=1, help="border_width")
    parser.add_argument("--only", nargs="+", help="configurations, by the beginnings of their names; 'off' always is")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/alignment_latent"), help="folder of finished results")
    parser.add_argument("--out", type=Path, help="Markdown file")
    return parser.parse_args()


def alignment(lambda_al: float, softness: float = 0.5, border: int = 1) -> GuidanceSettings:
    return GuidanceSettings(
        alignment=AlignmentSettings(lambda_al=lambda_al, softness=softness, border_width=border),
        schedule=GuideSchedule(fraction=0.5),
    )


def filled(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The hole filled with the mean of the known pixels around it, from the finest scale that knows any."""
    known = 1 - masks
    result, scale = images * known, 1
    missing = masks.clone()
    while missing.any() and scale < images.shape[-1]:
        scale *= 2
        weight, total = F.avg_pool2d(known, scale), F.avg_pool2d(images * known, scale)
        mean = F.interpolate(total / weight.clamp(min=1e-6), scale_factor=scale)
        found = missing * (F.interpolate(weight, scale_factor=scale) > 0)
        result, missing = result + found * mean, missing - found
    return result


class LatentProblem:
    """Held-out scenes, thick masks and the latent model; one `run` per configuration, always from the same noise."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.denoiser, self.space = latent_space.load(args.model, args.assets / "taef2")
        size, seeds = latent_space.SIZE, HELD_OUT_SEEDS[FIRST_SCENE : FIRST_SCENE + args.n]
        self.images = landscapes(seeds, size)
        self.masks = masks_above(MIN_COVERAGE, "thick", size, size, args.n, first_seed=FIRST_SCENE)
        self.y = torch.cat([self.space.encode(part) for part in filled(self.images, self.masks).split(args.batch)])
        self.cells = F.max_pool2d(self.masks, latent_space.RATIO)
        self.sigmas = spaced_sigmas(self.denoiser.sigmas, args.steps)
        self.noise = torch.randn(self.y.shape, generator=torch.Generator().manual_seed(0))
        self.decoders = {"rgb": self._host_rgb(), "fitted": self._fitted_rgb(), "tiny": self._tiny, "cells": self._tiny}

    def _host_rgb(self) -> LinearRGB:
        """ComfyUI's projection for FLUX.2 latents, here before it packs 2 x 2 cells into channels."""
        sys.path.insert(0, str(Path(os.environ.get("COMFYUI_PATH", Path.home() / "ComfyUI"))))
        import comfy.latent_formats

        known = comfy.latent_formats.Flux2()
        factors, bias = torch.tensor(known.latent_rgb_factors), torch.tensor(known.latent_rgb_factors_bias)
        return LinearRGB(factors, bias, self.space.raw)

    def _fitted_rgb(self) -> LinearRGB:
        images = landscapes(TRAIN_SEEDS[:FIT_SCENES], latent_space.SIZE)
        return fit_linear_rgb(self.space.encode(images), images)

    def _tiny(self, z: torch.Tensor) -> torch.Tensor:
        with autocast("cpu", torch.bfloat16):
            return self.space.decode(z)

    def configurations(self) -> dict:
        """name -> (settings, decoder's name or None)."""
        border = self.args.border
        names = {BASE: (alignment(0.0), None)}
        for space, values in (
            ("latent", (0.1, 1.0)),
            ("rgb", (0.1, 1.0, 10.0)),
            ("fitted", (1.0,)),
            ("tiny", (0.1, 1.0, 10.0)),
            ("cells", (1.0,)),
        ):
            for value in values:
                names[f"{space} {value:g}"] = (alignment(value, border=border), None if space == "latent" else space)
        return names

    def run(self, settings: GuidanceSettings, decoder: str | None) -> MethodRun:
        latents, evaluations, backwards, started = [], 0, 0, time.process_time()
        for i, start in enumerate(range(0, len(self.y), self.args.batch)):
            part = slice(start, start + self.args.batch)
            result = inpaint(
                self.denoiser,
                self.y[part],
                self.cells[part],
                sigmas=self.sigmas,
                noise=self.noise[part],
                seed=i,
                sampler="ddpm",
                settings=settings,
                clip=None,
                progress=False,
                view=self.seen(part, decoder),
            )
            latents.append(result.image)
            evaluations, backwards = result.evaluations, result.backwards
        seconds = (time.process_time() - started) / len(self.y)
        with torch.no_grad():
            decoded = torch.cat([self.space.decode(z).clamp(-1, 1) for z in torch.cat(latents).split(self.args.batch)])
        return MethodRun(torch.where(self.masks > 0, decoded, self.images), evaluations, backwards, seconds)

    def seen(self, part: slice, decoder: str | None):
        if decoder is None:
            return None
        fine = self.masks[part] if decoder == "tiny" else None
        return view(self.decoders[decoder], self.y[part], self.cells[part], self.args.border, fine)

    def step_seconds(self, settings: GuidanceSettings, decoder: str | None, guided: bool) -> float:
        """CPU seconds of one step of one image: the least of three, after one to warm up."""
        from gradpaint.method.plan import RunPlan, Step
        from gradpaint.sampling.evaluate import StepEvaluator
        from gradpaint.sampling.inpaint_method import InpaintMethod

        part = slice(0, 4)
        y, cells, method = self.y[part], self.cells[part], InpaintMethod(settings if guided else None)
        plan = RunPlan(method.settings, y, cells, 2)
        evaluate = StepEvaluator(self.denoiser, method, plan, y, cells, self.seen(part, decoder))
        times = []
        for _ in range(4):
            started = time.process_time()
            evaluate(y + self.noise[part], Step(0, 1.0, 0.5))
            times.append(time.process_time() - started)
        return min(times[1:]) / 4

    def title(self) -> str:
        args = self.args
        return (
            f"## Latents\n\nA latent diffusion model (32 channels, /8) trained on procedural landscapes; {args.n} "
            f"held-out scenes, 128 x 128, thick masks (mean coverage {self.masks.mean():.2f}), {args.steps} ddpm "
            f"steps, first half guided, softness 0.5, border_width {args.border}. The number is lambda_al. rgb: "
            "ComfyUI's projection for FLUX.2; fitted: by least squares on training scenes; tiny: the tiny decoder "
            "in bfloat16, which is here also the decoder that results are shown with, so the best case for it; "
            "cells: the same with the latent's mask, enlarged, in place of the mask in pixels, so that known "
            "pixels in repainted cells play no part."
        )


class PixelProblem:
    """The pixel model of the assets: the edge match with our weight, and with the paper's weight and exact eq. 7."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        sys.path.insert(0, str(args.assets / "anime64"))
        import anime64

        model = anime64.load()
        files = sorted((args.assets / "anime64" / "dev").glob("*.png"))[: args.n]
        self.images = torch.cat([load_image(file) for file in files])
        self.masks = make_masks("thick", 64, 64, range(len(files)))
        # sigma_max 13.7: above it an eps model's error is multiplied beyond use (see the model's README).
        self.sigmas = spaced_sigmas(anime64.sigmas()[:286], args.steps)

        def denoise(x, sigma):
            with autocast("cpu", torch.bfloat16):
                return model.denoise(x, sigma).float()

        self.denoiser = denoise

    def configurations(self) -> dict:
        """name -> (settings, None)."""
        return {
            BASE: (alignment(0.0), None),
            "ours 0.1": (alignment(0.1), None),
            "ours 1": (alignment(1.0), None),
            "exact eq. 7, 0.1": (alignment(0.1, softness=0.0), None),
            "paper's weight: exact eq. 7, 400": (alignment(400.0, softness=0.0), None),
        }

    def run(self, settings: GuidanceSettings, decoder: None) -> MethodRun:
        method = library_method(self.denoiser, self.sigmas, sampler="ddpm", settings=settings, full_noise=False)
        return run_methods({"it": method}, self.images, self.masks, batch_size=self.args.batch)["it"]

    def title(self) -> str:
        return (
            f"## Pixels\n\nanime64, {len(self.images)} development images, thick masks, {self.args.steps} ddpm "
            "steps, first half guided, bfloat16. The number is lambda_al, of the edge match; ours: softness 0.5."
        )


def finished(problem, args: argparse.Namespace) -> dict[str, MethodRun]:
    """Every configuration's run, from the cache where it is there. `off` first."""
    args.cache.mkdir(parents=True, exist_ok=True)
    runs = {}
    for name, (settings, decoder) in problem.configurations().items():
        if args.only and name != BASE and not name.startswith(tuple(args.only)):
            continue
        kind = "pixels" if args.pixels else "latents"
        file = args.cache / f"{kind}_{args.n}_{args.steps}_{args.border}_{name.replace(' ', '_')}.pt"
        if not file.exists():
            run = problem.run(settings, decoder)
            torch.save((run.images, run.evaluations, run.backwards, run.seconds), file)
            print(f"{name}: {run.seconds:.2f} CPU s an image", file=sys.stderr, flush=True)
        runs[name] = MethodRun(*torch.load(file, weights_only=True))
    return runs


def cost_table(problem: LatentProblem) -> str:
    """CPU seconds of a guided step of one image, and in units of a plain one."""
    plain = problem.step_seconds(alignment(0.0), None, guided=False)
    rows = [["plain step", f"{plain:.4f}", "1"]]
    for name, decoder in ((BASE, None), ("latent", None), ("rgb", "rgb"), ("tiny", "tiny")):
        seconds = problem.step_seconds(alignment(0.0 if name == BASE else 1.0), decoder, guided=True)
        rows.append([f"guided, {name}", f"{seconds:.4f}", f"{seconds / plain:.2f}"])
    return markdown(["step of one image", "CPU s", "relative"], rows)


def main() -> None:
    args = arguments()
    os.environ["TORCH_HOME"] = str((args.assets / "torch_home").resolve())
    torch.set_num_threads(1)
    problem = PixelProblem(args) if args.pixels else LatentProblem(args)
    runs = finished(problem, args)
    parts = [problem.title(), tables(compared(runs, problem.images, problem.masks, BASE))]
    if not args.pixels:
        parts.append(cost_table(problem))
    parts.append(
        f"Command: `python {' '.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}`; torch "
        f"{torch.__version__}, {platform.machine()}, CPU, 1 thread."
    )
    text = "\n\n".join(parts) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
