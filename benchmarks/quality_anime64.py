"""GradPaint against its baselines on a real pretrained 64 x 64 pixel-space model, with paired standard errors.

    python benchmarks/quality_anime64.py --assets ../shared/anime64 --n 32 --steps 30 --out quality.json

Prints Markdown tables. The model and its development images are not part of this repository; see the folder's README.
CPU seconds are those of this process; run with OMP_NUM_THREADS=1 on a shared machine. LPIPS needs the `lpips` extra and
SqueezeNet's weights in TORCH_HOME.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gradpaint.evaluation.compare import compare, library_method, paired_statistics  # noqa: E402
from gradpaint.evaluation.metrics import seam_energy  # noqa: E402
from gradpaint.masks import masks_above  # noqa: E402
from gradpaint.report import checkerboard, contact_sheet  # noqa: E402
from gradpaint.schedule import spaced_sigmas  # noqa: E402
from gradpaint.settings import (  # noqa: E402
    DEFAULT_ALPHA,
    DEFAULT_FRACTION,
    DEFAULT_LAMBDA_AL,
    AlignmentSettings,
    GuidanceSettings,
    GuideSchedule,
)

HIGHEST = 285  # timestep to start from: sigma 13.7. Above it, an error of the network is multiplied by thousands.


def load(assets, bfloat16):
    """(denoiser, ascending sigmas) of the model in that folder."""
    sys.path.insert(0, str(assets))
    import anime64

    model = anime64.load()

    def denoiser(x, sigma):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return model.denoise(x, sigma).float()

    return denoiser, anime64.sigmas()[: HIGHEST + 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=Path("../shared/anime64"))
    parser.add_argument("--n", type=int, default=32, help="images, at most 32")
    parser.add_argument("--first", type=int, default=0, help="number of the first image")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sampler", choices=("ddpm", "ddim"), default="ddpm")
    parser.add_argument("--mask", default="thick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alpha", type=float, default=DEFAULT_ALPHA)
    parser.add_argument("--lambda-al", type=float, default=DEFAULT_LAMBDA_AL)
    parser.add_argument("--stop", type=float, default=DEFAULT_FRACTION, help="share of the run that is guided")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--methods", nargs="*", help="names of the methods to run; without it all four")
    parser.add_argument("--no-lpips", action="store_true")
    parser.add_argument("--bfloat16", action="store_true", help="run the network in bfloat16: faster on some CPUs")
    parser.add_argument("--out", type=Path, help="JSON with all scores per image")
    parser.add_argument("--sheet", type=Path, help="PNG with all pictures; they are not to be published")
    arguments = parser.parse_args()

    denoiser, table = load(arguments.assets.resolve(), arguments.bfloat16)
    files = sorted((arguments.assets / "dev").glob("*.png"))[arguments.first : arguments.first + arguments.n]
    if not files:
        parser.error(f"no images in {arguments.assets / 'dev'}")
    images = torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files])
    images = images.permute(0, 3, 1, 2) / 127.5 - 1
    masks = masks_above(0.1, arguments.mask, *images.shape[2:], len(images), first_seed=1000 * arguments.seed)

    def settings(lambda_al):
        return GuidanceSettings(
            alpha=arguments.alpha,
            alignment=AlignmentSettings(lambda_al=lambda_al),
            schedule=GuideSchedule(fraction=arguments.stop),
        )

    options = {
        "combine_image": {"method": "combine_image"},
        "combine_noisy": {"method": "combine_noisy"},
        "gradpaint": {"method": "gradpaint", "settings": settings(arguments.lambda_al)},
        "gradpaint, lambda_al 0": {"method": "gradpaint", "settings": settings(0.0)},
    }
    chosen = arguments.methods or list(options)
    sigmas = spaced_sigmas(table, arguments.steps)
    methods = {name: library_method(denoiser, sigmas, sampler=arguments.sampler, **options[name]) for name in chosen}
    runs, text = compare(
        methods, images, masks, chosen[0], seed=arguments.seed, batch_size=arguments.batch,
        with_lpips=not arguments.no_lpips, on_batch=lambda name, done: print(f"{name}: {done}", file=sys.stderr),
    )
    print(f"{len(images)} images, {arguments.mask} masks (mean coverage {masks.mean():.2f}), {arguments.steps} "
          f"{arguments.sampler} steps, alpha {arguments.alpha}, lambda_al {arguments.lambda_al}, "
          f"first {arguments.stop:.0%} guided\n\n{text}")
    if arguments.out:
        statistics = paired_statistics(runs, seam_energy(images, masks), chosen[0])
        content = {
            "arguments": {name: str(value) for name, value in vars(arguments).items()},
            "coverage": masks.mean(dim=(1, 2, 3)).tolist(),
            "scores": {name: {k: v.tolist() for k, v in run.scores.items()} for name, run in runs.items()},
            "paired": {m: {k: [e.value, e.error] for k, e in row.items()} for m, row in statistics.items()},
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    if arguments.sheet:
        masked = checkerboard(images, masks)
        rows = [[images[i], masked[i], *(run.images[i] for run in runs.values())] for i in range(len(images))]
        contact_sheet(rows, ["input", "masked", *runs]).save(arguments.sheet)


if __name__ == "__main__":
    main()
