"""Quality on a real pretrained 64x64 model: paired comparison of the library's methods.

    python benchmarks/quality_anime64.py --assets ../shared --out benchmarks/results/quality_anime64.md

The assets (model, 32 development images, LPIPS weights) are this project's internal measurement set and not part of
the repository. One CPU thread unless --threads says more.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gradpaint.method.settings import DEFAULT_LAMBDA_AL, DEFAULT_SOFTNESS, DEFAULT_STRENGTH  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--n", type=int, default=32, help="images, at most 32")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sampler", default="ddpm", choices=["ddpm", "ddim"])
    parser.add_argument("--mask", default="thick", help="a kind of gradpaint.masks")
    parser.add_argument("--seed", type=int, default=0, help="of masks and noise")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--strength", type=float, default=DEFAULT_STRENGTH)
    parser.add_argument("--alpha", type=float, help="instead of strength")
    parser.add_argument("--lambda-al", type=float, default=DEFAULT_LAMBDA_AL)
    parser.add_argument("--softness", type=float, default=DEFAULT_SOFTNESS, help="0: eq. 7 to the letter")
    parser.add_argument("--normalization", default="rms", choices=["rms", "l2"])
    parser.add_argument("--bfloat16", action="store_true", help="autocast the model: about five times faster here")
    parser.add_argument("--out", type=Path, help="Markdown file")
    parser.add_argument("--sheet", type=Path, help="PNG of all results, to look at (the images are internal)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    os.environ["TORCH_HOME"] = str((args.assets / "torch_home").resolve())
    sys.path.insert(0, str(args.assets / "anime64"))
    import anime64
    import torch
    from on_tensors import library_method, run_methods
    from torch import autocast
    from tqdm import tqdm

    from gradpaint.image.files import load_image
    from gradpaint.masks import make_masks
    from gradpaint.method.settings import AlignmentSettings, GuidanceSettings
    from gradpaint.sampling.sigmas import spaced_sigmas

    torch.set_num_threads(args.threads)
    files = sorted((args.assets / "anime64" / "dev").glob("*.png"))[: args.n]
    images = torch.cat([load_image(file) for file in files])
    masks = make_masks(args.mask, 64, 64, range(args.seed, args.seed + len(files)))
    model = anime64.load()
    # sigma_max 13.7: above it an eps model's error is multiplied beyond use (see the model's README).
    sigmas = spaced_sigmas(anime64.sigmas()[:286], args.steps)

    def denoise(x, sigma):
        with autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            return model.denoise(x, sigma).float()

    step = {"strength": args.strength, "alpha": args.alpha, "normalization": args.normalization}
    defaults = GuidanceSettings(**step, alignment=AlignmentSettings(lambda_al=args.lambda_al, softness=args.softness))
    without = GuidanceSettings(**step, alignment=AlignmentSettings(lambda_al=0.0))
    common = {"sampler": args.sampler, "full_noise": False}
    methods = {
        "combine_image": library_method(denoise, sigmas, method="combine_image", **common),
        "combine_noisy": library_method(denoise, sigmas, method="combine_noisy", **common),
        "GradPaint, no alignment": library_method(denoise, sigmas, settings=without, **common),
        "GradPaint": library_method(denoise, sigmas, settings=defaults, **common),
    }
    with tqdm(total=len(methods) * len(images)) as bar:
        runs = run_methods(
            methods,
            images,
            masks,
            seed=args.seed,
            batch_size=args.batch,
            on_batch=lambda name, done: bar.update(done - (done - 1) // args.batch * args.batch),
        )
    write_results(args, runs, images, masks, defaults)


def write_results(args: argparse.Namespace, runs: dict, images, masks, defaults) -> None:
    """Print and write the tables and the sheet."""
    import torch
    from on_tensors import compared, tables

    table = tables(compared(runs, images, masks, "combine_image"))
    title = (
        f"anime64, {len(images)} development images, {args.mask} masks, {args.steps} {args.sampler} steps, "
        f"seed {args.seed}, {defaults}"
    )
    precision = "bfloat16 autocast" if args.bfloat16 else "float32"
    text = (
        f"{title}\n\n{table}\n\nCommand: `python {' '.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}`; torch "
        f"{torch.__version__}, {platform.machine()}, CPU, {args.threads} thread(s), {precision}.\n"
    )
    print(text)
    if args.out is not None:
        args.out.write_text(text)
    if args.sheet is not None:
        from gradpaint.drawing.contact_sheet import checkerboard, contact_sheet

        masked = checkerboard(images, masks)
        rows = [[images[i], masked[i], *(run.images[i] for run in runs.values())] for i in range(len(images))]
        contact_sheet(rows, ["input", "masked", *runs]).save(args.sheet)


if __name__ == "__main__":
    main()
