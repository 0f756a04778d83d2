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

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gradpaint.drawing.contact_sheet import checkerboard, contact_sheet
from gradpaint.evaluation.compare import compare, library_method, paired_statistics
from gradpaint.evaluation.metrics import lpips, seam_energy
from gradpaint.guided_diffusion import load_denoiser
from gradpaint.masks import masks_above
from gradpaint.models import bundled_model_path
from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes
from gradpaint.sampling.sigmas import spaced_sigmas

FIRST_SCENE = 50_000  # within HELD_OUT_SEEDS; apart from the demonstration's and from those of the training log
MIN_COVERAGE = 0.1  # of a mask: smaller holes show little
SHEET_ROWS = 16


def lpips_available() -> bool:
    """Whether LPIPS can be computed here; says why if not."""
    probe = torch.zeros(1, 3, 64, 64)
    try:
        lpips(probe, probe)
    except (ImportError, RuntimeError) as error:
        print(f"LPIPS left out: {error}", file=sys.stderr)
        return False
    return True


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
    runs, tables = compare(
        methods,
        images,
        masks,
        "combine_image",
        seed=args.seed,
        batch_size=args.batch,
        with_lpips=lpips_available(),
        on_batch=lambda name, done: print(f"{name}: {done}", file=sys.stderr),
    )
    text = (
        f"{args.n} held-out scenes, {args.mask} masks (mean coverage {masks.mean():.2f}), {args.steps} "
        f"{args.sampler} steps, seed {args.seed}\n\n{tables}"
    )
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.md").write_text(text + "\n")
    paired = paired_statistics(runs, seam_energy(images, masks), "combine_image")
    content = {
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "scores": {name: {k: v.tolist() for k, v in run.scores.items()} for name, run in runs.items()},
        "paired": {m: {k: [e.value, e.error] for k, e in row.items()} for m, row in paired.items()},
    }
    (args.out / "scores.json").write_text(json.dumps(content, indent=1) + "\n")
    masked = checkerboard(images, masks)
    rows = [[images[i], masked[i], *(run.images[i] for run in runs.values())] for i in range(min(args.n, SHEET_ROWS))]
    contact_sheet(rows, ["input", "masked", *runs]).save(args.out / "sheet.png")


if __name__ == "__main__":
    main()
