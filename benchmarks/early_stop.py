"""Does the adaptive early stop save backward passes without a loss? Fixed shares against it, paired, on real models.

    python benchmarks/early_stop.py --system demo --n 32 --steps 30 --out benchmarks/results/early_stop.md

demo: the bundled model on scenes that it was not trained on. anime64: the pretrained model of this project's internal
measurement set (--assets). Networks in bfloat16 autocast, one CPU thread. Each row is appended to --out as it is done.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from anime64_host import TOP, image_files  # noqa: E402
from on_tensors import MethodRun, scores_of  # noqa: E402
from torch import autocast  # noqa: E402

from gradpaint.evaluation.results import Comparison, comparison  # noqa: E402
from gradpaint.image.files import load_image  # noqa: E402
from gradpaint.masks import masks_above  # noqa: E402
from gradpaint.method.settings import GuidanceSettings, GuideSchedule  # noqa: E402
from gradpaint.sampling.inpaint import inpaint  # noqa: E402
from gradpaint.sampling.sigmas import spaced_sigmas  # noqa: E402

SEED = 5
HEADER = (
    "| guided | share of the steps, per image | masked MSE | seam | LPIPS | minus {0}: masked MSE | LPIPS | "
    "abs log seam |\n|---|---|---|---|---|---|---|---|"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", choices=["demo", "anime64"], default="demo")
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--first", type=int, default=0, help="first image")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sampler", default="ddpm")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--fixed", type=float, nargs="*", default=[0.0, 0.5, 1.0], help="shares of the run")
    parser.add_argument(
        "--adaptive", nargs="*", default=["default"], metavar="PATIENCE:TOLERANCE:MINIMUM", help="or default"
    )
    parser.add_argument("--against", default="0.5", help="row that the others are compared with")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def system(args):
    """(denoiser, table of sigmas, images, options of `inpaint`)"""
    if args.system == "demo":
        from gradpaint.guided_diffusion import load_denoiser
        from gradpaint.models import bundled_model_path
        from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes

        model = load_denoiser(bundled_model_path())
        images = landscapes([HELD_OUT_SEEDS[500 + args.first + i] for i in range(args.n)], model.image_size)
        return _in_bfloat16(model), model.sigmas, images, {}
    sys.path.insert(0, str(args.assets / "anime64"))
    import anime64

    files = image_files(args.assets, args.first + args.n)[args.first :]
    images = torch.cat([load_image(file) for file in files])
    return _in_bfloat16(anime64.load().denoise), anime64.sigmas()[:TOP], images, {"full_noise": False}


def _in_bfloat16(denoiser):
    def denoise(x, sigma):
        with autocast("cpu", torch.bfloat16):
            return denoiser(x, sigma).float()

    return denoise


def schedules(args) -> dict[str, GuideSchedule]:
    schedules = {f"{share:g}": GuideSchedule(fraction=share) for share in args.fixed}
    for text in args.adaptive:
        if text == "default":
            schedules["adaptive"] = GuideSchedule.adaptive()
            continue
        patience, tolerance, minimum = map(float, text.split(":"))
        schedules[f"adaptive {text}"] = GuideSchedule(
            mode="adaptive", patience=patience, tolerance=tolerance, minimum=minimum
        )
    return schedules


def run(args, schedule: GuideSchedule, denoiser, sigmas, images, masks, options) -> tuple[MethodRun, list[int]]:
    """All images with this schedule, and after how many steps each image's guidance ended."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(SEED))
    parts, ends, backwards, started = [], [], 0, time.process_time()
    for start in range(0, len(images), args.batch):
        part = slice(start, start + args.batch)
        y = images[part] * (1 - masks[part])
        result = inpaint(
            denoiser,
            y,
            masks[part],
            sigmas=sigmas,
            noise=noise[part],
            seed=SEED + start,
            sampler=args.sampler,
            settings=GuidanceSettings(schedule=schedule),
            progress=False,
            **options,
        )
        parts.append(result.image)
        backwards += result.backwards * len(y)
        ends += result.stop.samples or [result.stop.step] * len(y)
    count = len(images)
    seconds = (time.process_time() - started) / count
    return MethodRun(torch.cat(parts), args.steps, backwards / count, seconds), ends


def row(args, name: str, ends: list[int], table: Comparison) -> str:
    """A line of the table; `table` holds this run and, unless it is that itself, the one it is compared with."""
    share, means = torch.tensor(ends, dtype=torch.float64) / args.steps, table.means[name]
    cells = [
        name,
        f"{share.mean():.2f} ({share.min():.2f} to {share.max():.2f})",
        f"{means['masked_mse'].value:.4f}",
        f"{means['seam_ratio'].value:.2f}",
        f"{means['lpips'].value:.4f}",
    ]
    minus = table.minus.get(name)
    if minus is None:
        return "| " + " | ".join([*cells, "", "", ""]) + " |"
    differences = [minus[metric] for metric in ("masked_mse", "lpips", "abs_log_seam")]
    return "| " + " | ".join([*cells, *(f"{d.value:+.4f} +- {d.error:.4f}" for d in differences)]) + " |"


def main() -> None:
    args = arguments()
    os.environ.setdefault("TORCH_HOME", str((args.assets / "torch_home").resolve()))
    torch.set_num_threads(1)
    denoiser, table, images, options = system(args)
    masks = masks_above(0.1, "thick", 64, 64, args.n, first_seed=1000 + args.first)
    sigmas = spaced_sigmas(table, args.steps)

    def write(text: str) -> None:
        print(text, flush=True)
        if args.out is not None:
            with args.out.open("a") as file:
                file.write(text + "\n")

    write(
        f"\n{args.system}, {args.n} images from number {args.first} on, thick masks, {args.steps} {args.sampler} "
        "steps\n\n" + HEADER.format(args.against)
    )
    base = None
    todo = schedules(args)
    for name in sorted(todo, key=lambda name: name != args.against):  # the row to compare with comes first
        result, ends = run(args, todo[name], denoiser, sigmas, images, masks, options)
        scores = scores_of(name, result, images, masks)
        base = scores if name == args.against else base
        methods = [scores] if base is None or base is scores else [base, scores]
        write(row(args, name, ends, comparison(methods, args.against)))
    write(f"\nCommand: `python {' '.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}`")


if __name__ == "__main__":
    main()
