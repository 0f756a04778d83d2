"""The paper's presets, today's default, and two candidates on the same images: quality, cost, paired differences.

    python benchmarks/presets.py --assets ../shared --state /tmp/presets --out benchmarks/results/presets.md

Runs the library's sampler, without ComfyUI. Every method gets the same images with the hole blanked, the same masks,
and the same noise. Finished batches stay in --state, so an interrupted run continues where it stopped and a repeated
one only writes its tables. A batch is not stored under the code: empty --state after changing a method.

"demo" is the model that comes with the pack, on scenes it was not trained on. "anime64" (--anime64 0 skips it) is a
pretrained model of this project's internal measurement set, as are the weights of LPIPS; both are under --assets.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import anime64_host  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from tqdm import tqdm  # noqa: E402

from gradpaint.evaluation.results import COSTS, Comparison, comparison, paired  # noqa: E402
from gradpaint.evaluation.scoring import score_tensors  # noqa: E402
from gradpaint.evaluation.tables import markdown, number  # noqa: E402
from gradpaint.image.files import load_image  # noqa: E402
from gradpaint.masks import masks_above  # noqa: E402
from gradpaint.method.settings import GuidanceSettings, preset  # noqa: E402
from gradpaint.sampling.methods import get_method  # noqa: E402
from gradpaint.sampling.sigmas import spaced_sigmas  # noqa: E402

BASELINE, TIMED_AGAINST, WITHOUT_ALIGNMENT = "default", "combine_image", "MSE alone, strength 1"
FIRST_SCENE = 5000  # no setting was chosen on the scenes from here on
FIRST_MASK, FIRST_NOISE = 7000, 1_000_000
LEAST_COVERAGE = 0.1  # masks with a smaller hole show little and are passed over
METRICS = ("lpips", "masked_mse", "seam_ratio")


def _eqs_5_to_8(softness: float) -> GuidanceSettings:
    """The paper's losses and schedule, displaced by our strength instead of the paper's alpha."""
    paper = GuidanceSettings.paper()
    return replace(paper, alpha=None, alignment=replace(paper.alignment, softness=softness))


METHODS: dict[str, GuidanceSettings | None] = {
    "combine_image": None,
    "mcg": None,
    **{name: preset(name) for name in ("default", "paper", "paper-l2", "GradPaint-Fast", "latent-paper")},
    "eqs. 5-8, strength 1": _eqs_5_to_8(0.0),
    "eqs. 5-8, strength 1, softness 0.5": _eqs_5_to_8(0.5),
    WITHOUT_ALIGNMENT: replace(preset("latent-paper"), alpha=None),
}
"""Name in the tables -> GradPaint's settings; None: another method of that name."""

LEGEND = """\
* combine_image: known pixels pasted into the estimate, no guidance. mcg: step 1.
* default: this project's own loss and weight, every step of the first 45%, strength 1.
* paper: eqs. 5-9, masked MSE at every step, alignment loss with weight 400 in the first 45%, alpha 0.005, RMS.
  paper-l2: the same with eq. 9 to the letter. GradPaint-Fast: paper, with everything off after 50%. latent-paper:
  paper without the alignment loss, here on pixels.
* eqs. 5-8, strength 1: the losses and the schedule of paper, displaced as far as in our default. softness 0.5: image
  gradients below 0.5 count as flat in eq. 6. MSE alone, strength 1: the same without the alignment loss."""


def run_of(text: str) -> tuple[str, int]:
    """ "ddpm:30" -> ("ddpm", 30)."""
    sampler, _, steps = text.partition(":")
    if sampler not in ("ddpm", "ddim") or not steps.isdigit() or int(steps) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} must be ddpm:STEPS or ddim:STEPS with at least 2 steps")
    return sampler, int(steps)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--runs", type=run_of, nargs="+", default=[("ddpm", 30), ("ddim", 20)], metavar="SAMPLER:STEPS")
    parser.add_argument("--demo", type=int, default=32, metavar="N", help="number of scenes, 0: none")
    parser.add_argument("--anime64", type=int, default=16, metavar="N", help="number of images, at most 32; 0: none")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--state", type=Path, required=True, help="folder for finished batches")
    parser.add_argument("--out", type=Path, help="Markdown file")
    parser.add_argument("--sheet", type=Path, help="folder for contact sheets (those of anime64 are internal)")
    parser.add_argument("--sheet-rows", type=int, default=8, help="images on a sheet")
    args = parser.parse_args(argv)
    if BASELINE not in args.methods or TIMED_AGAINST not in args.methods:
        parser.error(f"--methods must include {BASELINE} and {TIMED_AGAINST}, which the others are compared with")
    if 1 in (args.demo, args.anime64):
        parser.error("--demo and --anime64 must be 0 or at least 2: one image has no standard error")
    return args


class System(NamedTuple):
    """A model and how it is sampled.

    Attributes:
        denoiser: (x, sigma) -> estimate.
        sigmas: The trained noise levels, ascending.
        full_noise: See `inpaint`.
        precision: In words.
    """

    denoiser: Callable[..., Tensor]
    sigmas: Tensor
    full_noise: bool
    precision: str


@lru_cache(maxsize=1)
def load_system(name: str, assets: Path) -> System:
    if name == "demo":
        from gradpaint.guided_diffusion import load_denoiser
        from gradpaint.models import bundled_model_path

        model = load_denoiser(bundled_model_path())
        return System(model, model.sigmas, True, "float32")
    anime64 = anime64_host._module(assets)
    network = anime64.load()
    anime64_host.quick_on_cpu(network)
    return System(network.denoise, anime64.sigmas()[: anime64_host.TOP], False, "bfloat16 autocast, channels last")


def load_images(name: str, assets: Path, count: int) -> Tensor:
    if name == "demo":
        from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes

        return landscapes(HELD_OUT_SEEDS[FIRST_SCENE : FIRST_SCENE + count])
    return torch.cat([load_image(file) for file in anime64_host.image_files(assets, count)])


class Problem(NamedTuple):
    """Images, masks, and noise of the first states; those of the first images do not depend on their number."""

    images: Tensor
    masks: Tensor
    noise: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Problem:
        masks = masks_above(LEAST_COVERAGE, "thick", *images.shape[2:], len(images), first_seed=FIRST_MASK)
        draw = lambda i: torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(FIRST_NOISE + i))
        return cls(images, masks, torch.stack([draw(i) for i in range(len(images))]))

    def part(self, start: int, count: int) -> Problem:
        return Problem(*(tensor[start : start + count] for tensor in self))


@dataclass(frozen=True)
class Batch:
    """What a batch is stored under: everything that its results depend on, but for the code."""

    system: str
    method: str
    sampler: str
    steps: int
    start: int

    def file(self, state: Path, part: Problem) -> Path:
        data = b"".join(tensor.numpy().tobytes() for tensor in part)
        setting = repr((self, METHODS[self.method])).encode()
        return state / f"{self.system}_{hashlib.sha256(setting + data).hexdigest()[:16]}.pt"

    def run(self, system: System, part: Problem) -> dict:
        """images (B, 3, H, W); forwards and backwards, model evaluations per image; seconds of CPU per image."""
        settings, started = METHODS[self.method], time.process_time()
        result = get_method(self.method if settings is None else "gradpaint").run(
            system.denoiser,
            torch.where(part.masks == 0, part.images, 0.0),
            part.masks,
            settings=settings,
            sigmas=spaced_sigmas(system.sigmas, self.steps),
            noise=part.noise,
            seed=self.start,
            sampler=self.sampler,
            full_noise=system.full_noise,
        )
        return {
            "images": result.image,
            "forwards": result.evaluations - result.backwards,
            "backwards": result.backwards,
            "seconds": (time.process_time() - started) / len(part.images),
        }


def finished(batch: Batch, args: argparse.Namespace, part: Problem) -> dict:
    """A batch's results, from --state if they are there."""
    file = batch.file(args.state, part)
    if not file.is_file():
        results = batch.run(load_system(batch.system, args.assets), part)
        args.state.mkdir(parents=True, exist_ok=True)
        torch.save(results, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    return torch.load(file)


def run_all(args: argparse.Namespace, name: str, sampler: str, steps: int, problem: Problem) -> dict[str, dict]:
    """Method -> its results, batch by batch in turn, so that all methods meet the same load of the machine."""
    batches: dict[str, list[dict]] = {method: [] for method in args.methods}
    starts = range(0, len(problem.images), args.batch)
    with tqdm(total=len(starts) * len(args.methods), desc=f"{name} {sampler} {steps}") as bar:
        for start in starts:
            for method, done in batches.items():
                part = problem.part(start, args.batch)
                done.append(finished(Batch(name, method, sampler, steps, start), args, part))
                bar.update()
    return {method: _joined(done) for method, done in batches.items()}


def _joined(batches: list[dict]) -> dict:
    images = torch.cat([batch["images"] for batch in batches])
    mean = lambda key: sum(len(batch["images"]) * batch[key] for batch in batches) / len(images)
    return {"images": images, **{key: mean(key) for key in COSTS}}


def scored(runs: dict[str, dict], problem: Problem) -> Comparison:
    images, masks = problem.images, problem.masks
    scores = [
        score_tensors(method, run["images"], images, masks, costs={key: run[key] for key in COSTS})
        for method, run in runs.items()
    ]
    return comparison(scores, BASELINE)


def section(title: str, runs: dict[str, dict], table: Comparison) -> str:
    """Markdown: means with costs, then paired differences: from the default, and between the rows at strength 1."""
    header = ["method", "LPIPS", "masked MSE", "seam (1 is ideal)", "forward", "forward + backward", "/ combine_image"]
    rows = [
        [
            method,
            *(number(table.means[method][metric], metric) for metric in METRICS),
            f"{run['forwards']:.0f}",
            f"{run['backwards']:.0f}",
            f"{run['seconds'] / runs[TIMED_AGAINST]['seconds']:.2f}",
        ]
        for method, run in runs.items()
    ]
    at_our_strength = comparison([one for one in table.methods if "strength 1" in one.label], WITHOUT_ALIGNMENT)
    differences = [paired(each, ("lpips", "masked_mse", "abs_log_seam")) for each in (table, at_our_strength)]
    note = ""
    if "paper-l2" in runs:
        moved = (runs["paper-l2"]["images"] - runs[TIMED_AGAINST]["images"]).abs()
        note = f"paper-l2 and combine_image differ by {moved.mean():.5f} on average (range 2)."
    return "\n\n".join(filter(None, [f"## {title}", markdown(header, rows), *differences, note]))


def save_sheet(args: argparse.Namespace, name: str, runs: dict[str, dict], problem: Problem) -> None:
    """The first results of every method at four times their size."""
    from gradpaint.drawing.contact_sheet import checkerboard, contact_sheet

    masked = checkerboard(problem.images, problem.masks)
    count = min(args.sheet_rows, len(masked))
    rows = [[problem.images[i], masked[i], *(run["images"][i] for run in runs.values())] for i in range(count)]
    args.sheet.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, ["original", "masked", *runs], cell=4 * masked.shape[-1]).save(args.sheet / f"{name}.png")


def report(args: argparse.Namespace) -> str:
    """The page as Markdown, after running what --state lacks."""
    sections = ["# The paper's presets, today's default, and what is between them", LEGEND]
    for name, count in (("demo", args.demo), ("anime64", args.anime64)):
        if not count:
            continue
        problem = Problem.of(load_images(name, args.assets, count))
        for sampler, steps in args.runs:
            runs = run_all(args, name, sampler, steps, problem)
            precision = load_system(name, args.assets).precision
            title = f"{name}, {count} images, thick masks, {steps} steps {sampler}, {precision}"
            sections.append(section(title, runs, scored(runs, problem)))
            if args.sheet is not None:
                save_sheet(args, f"{name}_{sampler}{steps}", runs, problem)
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    machine = f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} thread(s)"
    return "\n\n".join([*sections, f"Command: `{command}`; {machine}."]) + "\n"


def main() -> None:
    args = arguments()
    os.environ["TORCH_HOME"] = str((args.assets / "torch_home").resolve())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    text = report(args)
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
