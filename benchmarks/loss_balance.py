"""How the two terms of eq. 8 balance on photographs: their values, their gradients, and where eq. 6's gradient sits.

    python benchmarks/loss_balance.py --photos ../shared/photos --out benchmarks/results/loss_balance.md

Eqs. 5 and 6 as printed, lambda 400, in float64, on 256 x 256 pixels with thick masks. An estimate x0_hat is the
photograph with noise added, or blurred. The balance is

    lambda * |dL_al / dx0_hat| / |dL_mse / dx0_hat|,     |.| the RMS over all values.

Then the same in the state x_t, where eq. 9 takes its gradient: during runs of the model that comes with the pack.

--photos is a folder of images of at least 256 x 256 pixels. It may be any; the one above is internal to this project.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from gradpaint.evaluation.tables import markdown  # noqa: E402
from gradpaint.guided_diffusion import load_denoiser  # noqa: E402
from gradpaint.image.files import load_image  # noqa: E402
from gradpaint.masks import masks_above  # noqa: E402
from gradpaint.method.losses import alignment_loss, masked_mse_eq5, normalized_gradients  # noqa: E402
from gradpaint.method.settings import PAPER_LAMBDA_AL, GuidanceSettings  # noqa: E402
from gradpaint.method.terms import ALIGNMENT, MSE  # noqa: E402
from gradpaint.models import bundled_model_path  # noqa: E402
from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes  # noqa: E402
from gradpaint.sampling.inpaint import inpaint  # noqa: E402
from gradpaint.sampling.sigmas import spaced_sigmas  # noqa: E402

SIZE = 256
SOFTNESSES = (0.0, 0.5)
NOISES = (0.05, 0.1, 0.2, 0.3, 0.4)  # standard deviation, of images in [-1, 1]
BLURS = (2, 4)  # standard deviation in pixels
TOP = 0.01  # share of the pixels that eq. 6's gradient reaches
FIRST_MASK, LEAST_COVERAGE = 2000, 0.1
SCENES, STEPS, SHOWN = range(5000, 5008), 30, (0, 2, 4, 6, 8, 10, 12)  # of the runs of the model


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of images")
    parser.add_argument("--masks", type=int, default=4, help="per photograph")
    parser.add_argument("--out", type=Path, help="Markdown file")
    return parser.parse_args(argv)


class Balance(NamedTuple):
    """Of one estimate.

    Attributes:
        mse: Eq. 5.
        alignment: Eq. 6 times lambda.
        ratio: See the top of this file.
        top: Share of eq. 6's squared gradient held by TOP of the pixels that it reaches.
    """

    mse: float
    alignment: float
    ratio: float
    top: float


def balance(x0_hat: Tensor, y: Tensor, mask: Tensor, softness: float) -> Balance:
    """Arguments as in `alignment_loss`, of one image."""
    leaf = x0_hat.double().requires_grad_()
    y, mask = y.double(), mask.double()
    mse = masked_mse_eq5(leaf, y, mask)
    alignment = PAPER_LAMBDA_AL * alignment_loss(leaf, y, mask, softness=softness)
    of_mse, of_alignment = (torch.autograd.grad(loss.sum(), leaf)[0] for loss in (mse, alignment))
    energy = of_alignment.square().sum(1).flatten()
    energy = energy[energy > 0].sort(descending=True).values
    top = energy[: max(1, round(TOP * len(energy)))].sum() / energy.sum()
    return Balance(mse.item(), alignment.item(), (of_alignment.norm() / of_mse.norm()).item(), top.item())


def photos(folder: Path) -> list[Tensor]:
    """(1, 3, H, W) each, in [-1, 1]."""
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not files:
        raise SystemExit(f"--photos is {folder}, but must be a folder with PNG, JPEG or WebP images")
    images = [load_image(file) for file in files]
    for file, image in zip(files, images):
        if min(image.shape[2:]) < SIZE:
            raise SystemExit(f"{file} is {image.shape[3]} x {image.shape[2]}, but must be at least {SIZE} x {SIZE}")
    return images


def cropped(image: Tensor) -> Tensor:
    """The middle of an image, at its own scale."""
    top, left = ((length - SIZE) // 2 for length in image.shape[2:])
    return image[..., top : top + SIZE, left : left + SIZE]


def resized(image: Tensor) -> Tensor:
    """Its middle square, reduced by averaging."""
    side = min(image.shape[2:])
    top, left = ((length - side) // 2 for length in image.shape[2:])
    return F.interpolate(image[..., top : top + side, left : left + side], size=(SIZE, SIZE), mode="area")


def estimates(image: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
    """(what it is, x0_hat)."""
    noise = torch.from_numpy(np.random.RandomState(seed).standard_normal(tuple(image.shape))).to(image)
    for level in NOISES:
        yield f"noise {level:g}", image + level * noise
    for width in BLURS:
        yield f"blur {width} pixels", blurred(image, width)


def blurred(image: Tensor, width: int) -> Tensor:
    """Gaussian of that standard deviation, the image continued as its mirror image."""
    offsets = torch.arange(-3 * width, 3 * width + 1).to(image)
    kernel = torch.exp(-((offsets / width) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    for weight, padding in ((kernel, (3 * width, 3 * width, 0, 0)), (kernel.mT, (0, 0, 3 * width, 3 * width))):
        image = F.conv2d(F.pad(image, padding, mode="reflect"), weight, groups=image.shape[1])
    return image


def spread(values: list[float]) -> str:
    """Median (lowest to highest), three digits each."""
    return "{} ({} to {})".format(*(digits(value) for value in (float(np.median(values)), min(values), max(values))))


def digits(value: float) -> str:
    return f"{value:.1e}" if value >= 1e6 else f"{float(f'{value:.3g}'):g}"


def measured(images: list[Tensor], masks: Tensor) -> dict[str, dict[float, list[Balance]]]:
    """Kind of estimate -> softness -> one balance per mask; masks[k * len(images) + i] is of image i."""
    by_kind: dict[str, dict[float, list[Balance]]] = {}
    for i, mask in enumerate(masks):
        image = images[i % len(images)]
        for kind, x0_hat in estimates(image, seed=i):
            of_kind = by_kind.setdefault(kind, {softness: [] for softness in SOFTNESSES})
            for softness, balances in of_kind.items():
                balances.append(balance(x0_hat, image, mask[None], softness))
    return by_kind


def table(images: list[Tensor], masks: Tensor) -> str:
    """Markdown: a row for each kind of estimate, over all images and masks."""
    header = ["x0_hat", "mse", "400 al", "400 al, soft", "balance", "balance, soft", "top 1%", "top 1%, soft"]
    rows = []
    for kind, (sharp, soft) in ((kind, of_kind.values()) for kind, of_kind in measured(images, masks).items()):
        columns = [[one.mse for one in sharp]]
        columns += [[one.alignment for one in balances] for balances in (sharp, soft)]
        columns += [[one.ratio for one in balances] for balances in (sharp, soft)]
        columns += [[100 * one.top for one in balances] for balances in (sharp, soft)]
        rows.append([kind, *map(spread, columns)])
    return markdown(header, rows)


def in_the_state(softness: float) -> list[list[float]]:
    """Balance in x_t, one per scene, at each step of SHOWN of a ddpm run with eqs. 5-8 at strength 1."""
    model = load_denoiser(bundled_model_path())
    images = landscapes([HELD_OUT_SEEDS[i] for i in SCENES])
    paper = GuidanceSettings.paper()
    result = inpaint(
        model,
        images,
        masks_above(LEAST_COVERAGE, "thick", *images.shape[2:], len(images), first_seed=FIRST_MASK),
        sigmas=spaced_sigmas(model.sigmas, STEPS),
        sampler="ddpm",
        settings=replace(
            paper,
            alpha=None,
            alignment=replace(paper.alignment, softness=softness),
            schedule=replace(paper.schedule, fraction=paper.alignment.fraction),
        ),
        keep_gradients=SHOWN,
        progress=False,
    )
    size = lambda step, term: result.record[step].maps[term].double().flatten(1).square().mean(1).sqrt()
    return [(size(step, ALIGNMENT) / size(step, MSE)).tolist() for step in SHOWN]


def state_table() -> str:
    """Markdown: `in_the_state` without and with softness."""
    columns = [in_the_state(softness) for softness in SOFTNESSES]
    rows = [[str(step), *map(spread, balances)] for step, *balances in zip(SHOWN, *columns)]
    return markdown([f"step of {STEPS}", *(f"balance, softness {softness:g}" for softness in SOFTNESSES)], rows)


def lambda_for_means(masks: Tensor) -> list[float]:
    """lambda that gives the same balance between means over known pixels and channels, and over border and channels."""
    dx, dy = normalized_gradients(1 - masks)
    border = ((dx != 0) | (dy != 0)).flatten(1).sum(1)
    known = (1 - masks).flatten(1).sum(1)
    return (PAPER_LAMBDA_AL * border / (3 * known)).tolist()


def report(args: argparse.Namespace) -> str:
    images = photos(args.photos)
    masks = masks_above(LEAST_COVERAGE, "thick", SIZE, SIZE, args.masks * len(images), first_seed=FIRST_MASK)
    small = masks_above(LEAST_COVERAGE, "thick", 64, 64, 32, first_seed=FIRST_MASK)
    sections = [
        "# How the terms of eq. 8 balance on photographs",
        f"{len(images)} photographs, {args.masks} thick masks each, {SIZE} x {SIZE}, eqs. 5 and 6 as printed, float64. "
        "Median (lowest to highest).\n\n"
        "* mse: eq. 5. 400 al: eq. 6 times the paper's weight. soft: with softness 0.5 in the image's gradients.\n"
        "* balance: 400 |dL_al/dx0_hat| / |dL_mse/dx0_hat|, RMS over all values; 1 means that both push equally hard.\n"
        f"* top 1%: the share, in percent, of eq. 6's squared gradient that {TOP:.0%} of the pixels that it reaches "
        "hold.",
        "## Middle crop, original scale",
        table([cropped(image) for image in images], masks),
        "## Whole photograph, reduced",
        table([resized(image) for image in images], masks),
        f"## In the state, during runs of the bundled model ({len(SCENES)} scenes, 64 x 64, ddpm)",
        state_table(),
        "## The same weight for means",
        "Over known pixels and over the border instead of sums over n^2, 400 becomes 400 |border| / (3 known pixels): "
        f"{spread(lambda_for_means(masks))} for these masks, {spread(lambda_for_means(small))} for thick masks at "
        "64 x 64.",
        f"Command: `python benchmarks/loss_balance.py {' '.join(sys.argv[1:])}`; torch {torch.__version__}, "
        f"{platform.machine()}.",
    ]
    return "\n\n".join(sections) + "\n"


def main() -> None:
    args = arguments()
    text = report(args)
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
