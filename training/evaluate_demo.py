"""The bundled model on held-out scenes with thick masks: GradPaint against combine_image.

    python training/evaluate_demo.py --out runs/evaluation

Same scenes, masks, starting noise and noise levels for both, with the library's sampler. Prints Markdown tables:
the methods' means, then paired differences +- standard error (z). Writes them, the scores of every image and a sheet of
pictures to --out. LPIPS needs the `lpips` extra and SqueezeNet's weights in TORCH_HOME; without them it is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from on_tensors import PAIRED, compared, library_method, run_methods, tables  # noqa: E402

from gradpaint.drawing.contact_sheet import checkerboard, contact_sheet  # noqa: E402
from gradpaint.evaluation.scoring import lpips_problem  # noqa: E402
from gradpaint.guided_diffusion import load_denoiser  # noqa: E402
from gradpaint.masks import masks_above  # noqa: E402
from gradpaint.models import bundled_model_path  # noqa: E402
from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes  # noqa: E402
from gradpaint.sampling.sigmas import spaced_sigmas  # noqa: E402

FIRST_SCENE = 50_000  # within HELD_OUT_SEEDS; apart from the demonstration's and from those of the training log
MIN_COVERAGE = 0.1  # of a mask: smaller holes show little
SHEET_ROWS = 16


def lpips_net() -> str | None:
    """The network of LPIPS, or None where it can't be computed here, with the reason on stderr."""
    problem = lpips_problem("squeeze", (64, 64))
    if problem is not None:
        print(f"LPIPS left out: {problem}", file=sys.stderr)
    return None if problem is not None else "squeeze"


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="default: the bundled one")
    parser.add_argument("--n", type=int, default=64, help="scenes")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sampler", choices=("ddpm", "ddim"), default="ddpm")
    parser.add_argument("--mask", default="thick")
    parser.add_argument("--seed", type=int, default=0, help="of the noise; moves scenes and masks along too")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    denoiser = load_denoiser(args.model or bundled_model_path(), device=args.device)
    size, first = denoiser.image_size, FIRST_SCENE + 1000 * args.seed
    images = landscapes(HELD_OUT_SEEDS[first : first + args.n], size).to(args.device)
    masks = masks_above(MIN_COVERAGE, args.mask, size, size, args.n, first_seed=first).to(args.device)
    sigmas = spaced_sigmas(denoiser.sigmas, args.steps)
    methods = {
        name: library_method(denoiser, sigmas, sampler=args.sampler, method=name)
        for name in ("combine_image", "gradpaint")
    }
    runs = run_methods(
        methods,
        images,
        masks,
        seed=args.seed,
        batch_size=args.batch,
        on_batch=lambda name, done: print(f"{name}: {done}", file=sys.stderr),
    )
    table = compared(runs, images, masks, "combine_image", lpips_net())
    text = (
        f"{args.n} held-out scenes, {args.mask} masks (mean coverage {masks.mean():.2f}), {args.steps} "
        f"{args.sampler} steps, seed {args.seed}\n\n{tables(table)}"
    )
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.md").write_text(text + "\n")
    metrics = ("masked_mse", "masked_psnr", "seam_energy", "lpips")
    content = {
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "scores": {s.label: {k: s.values[k].tolist() for k in metrics if k in s.values} for s in table.methods},
        "paired": {m: {k: [row[k].value, row[k].error] for k in PAIRED if k in row} for m, row in table.minus.items()},
    }
    (args.out / "scores.json").write_text(json.dumps(content, indent=1) + "\n")
    masked = checkerboard(images, masks)
    rows = [[images[i], masked[i], *(run.images[i] for run in runs.values())] for i in range(min(args.n, SHEET_ROWS))]
    contact_sheet(rows, ["input", "masked", *runs]).save(args.out / "sheet.png")


if __name__ == "__main__":
    main()
