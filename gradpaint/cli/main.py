"""The `gradpaint` command. torch is imported only by the commands that need it, so that --help is quick."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeAlias, TypedDict

from .. import __version__
from ..sampling import methods
from . import arguments as shared
from . import evaluate as cli_evaluate
from .arguments import BAD_INPUT, INTERRUPTED, MASK_KINDS, MASK_OPTIONS, SAMPLERS, complain

if TYPE_CHECKING:
    from torch import Tensor

    from ..method.settings import GuidanceSettings
    from ..sampling.inpaint import InpaintResult

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

# latent_copy needs the codec of a latent model, and the command has none.
METHODS = tuple(name for name in methods.METHODS if name != "latent_copy")
METHOD_OPTIONS: shared.Options = {
    "resamplings": (int, "repaint: how often each stretch of the run is sampled (RePaint's paper: 10)"),
    "jump_length": (int, "repaint: steps in a stretch (RePaint's paper: 10, of 250)"),
    "step": (float, "mcg: length of its gradient step (MCG's paper: 1, with 1000 steps)"),
    "zeta": (float, "dps: length of its gradient step (DPS's paper: 0.5, with 1000 steps)"),
}
__all__ = ["METHODS", "SAMPLERS", "MASK_KINDS", "MASK_OPTIONS", "build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command and its sub-commands."""
    parser = argparse.ArgumentParser(
        prog="gradpaint", description="Training-free inpainting with any diffusion model, guided by gradients."
    )
    parser.add_argument("--version", action="version", version=f"gradpaint {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_inpaint(commands)
    cli_evaluate.add_arguments(_command(commands, "evaluate", cli_evaluate.evaluate, cli_evaluate.SUMMARY))
    _add_mask(commands)
    return parser


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows default values, except for options that have none and for flags."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def _command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, formatter_class=_HelpFormatter)
    command.set_defaults(run=run)
    return command


def _add_run_arguments(command: argparse.ArgumentParser, steps: int, sampler: str) -> None:
    command.add_argument("--steps", type=int, default=steps, help="sampling steps")
    command.add_argument("--sampler", choices=SAMPLERS, default=sampler, help="ddpm adds fresh noise, ddim does not")
    command.add_argument("--seed", type=shared.seed, default=0, help="the same seed gives the same image")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")


def _add_demo(commands: Commands) -> None:
    command = _command(commands, "demo", demo, "show GradPaint on scenes that the bundled model has never seen")
    command.add_argument("--out", type=Path, default=Path("gradpaint_demo"), help="folder for the results")
    command.add_argument("--n", type=int, default=8, help="number of images")
    command.add_argument("--mask", choices=MASK_KINDS, default="thick", metavar="KIND", help=", ".join(MASK_KINDS))
    command.add_argument(
        "--threads",
        type=shared.threads,
        default=1,
        help="CPU threads; more gain little with such a small model, and cost a lot on a busy machine",
    )
    _add_run_arguments(command, steps=30, sampler="ddpm")


def _add_inpaint(commands: Commands) -> None:
    command = _command(commands, "inpaint", inpaint, "repaint the white area of MASK in IMAGE")
    command.add_argument("image", type=Path, metavar="IMAGE", help="image to repair")
    command.add_argument("mask", type=Path, metavar="MASK", help="same size; white is repainted, black is kept")
    command.add_argument(
        "--model",
        type=Path,
        help="guided-diffusion or latent diffusion (CompVis, VQ) checkpoint; by default the bundled 64x64 model",
    )
    command.add_argument(
        "--out", type=Path, help="PNG to write; by default IMAGE's name plus _gradpaint, in this folder"
    )
    command.add_argument(
        "--method",
        choices=METHODS,
        default="gradpaint",
        metavar="METHOD",
        help="; ".join(f"{name}: {methods.METHODS[name].summary}" for name in METHODS),
    )
    for name, (kind, text) in METHOD_OPTIONS.items():
        command.add_argument(f"--{name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS, help=text)
    _add_run_arguments(command, steps=50, sampler="ddpm")
    shared.add_guidance(command)
    shared.add_model_details(command)
    command.add_argument("--invert-mask", action="store_true", help="repaint the black area instead")
    command.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="write pictures of the run too: timeline.png, gradients.png, losses.png",
    )


def _add_mask(commands: Commands) -> None:
    command = _command(commands, "mask", mask, "draw a mask, white = repaint")
    command.add_argument("kind", choices=MASK_KINDS, metavar="KIND", help=", ".join(MASK_KINDS))
    command.add_argument("--size", type=shared.size, default="256x256", metavar="HxW", help="height x width in pixels")
    command.add_argument("--seed", type=shared.seed, default=0, help="the same seed gives the same mask")
    command.add_argument("--out", type=Path, default=Path("mask.png"), help="PNG to write")
    shared.add_mask_options(command)


def demo(arguments: argparse.Namespace) -> int:
    """Run `gradpaint demo`."""
    import torch

    from .demo import metrics_table, run_demo

    torch.set_num_threads(arguments.threads)
    shared.check_folder(arguments.out, "--out")
    started = time.perf_counter()
    try:
        metrics = run_demo(
            arguments.out,
            seed=arguments.seed,
            steps=arguments.steps,
            count=arguments.n,
            mask_kind=arguments.mask,
            sampler=arguments.sampler,
            device=shared.device(arguments.device),
        )
    except KeyboardInterrupt:
        count = len(list(arguments.out.glob("results/*.png")))
        complain(f"interrupted; {count} finished images are in {arguments.out / 'results'}")
        return INTERRUPTED
    print(f"{arguments.n} held-out scenes, {arguments.mask} masks, {arguments.steps} steps, same noise for both:")
    print(metrics_table(metrics))
    print(
        f"wrote contact_sheet.png, loss.png, metrics.json and results/ to {arguments.out} "
        f"in {time.perf_counter() - started:.0f} s"
    )
    return 0


def inpaint(arguments: argparse.Namespace) -> int:
    """Run `gradpaint inpaint`."""
    from ..image.files import load_image, load_mask, save_image
    from ..sampling.inpaint_image import size_warning

    guidance = shared.guidance_settings(arguments)
    out = _output_file(arguments)
    options = {name: getattr(arguments, name) for name in METHOD_OPTIONS if hasattr(arguments, name)}
    _check_method(arguments, options)
    image = load_image(arguments.image)
    hole = load_mask(arguments.mask, size=image.shape[2:], invert=arguments.invert_mask)
    device = shared.device(arguments.device)
    denoiser, inpaint_image = shared.load_any_model(arguments, arguments.model, device)
    warning = size_warning(image.shape[2], image.shape[3], denoiser.image_size)
    if warning:
        complain(f"warning: {warning}")
    try:
        result = inpaint_image(
            denoiser,
            image,
            hole,
            steps=arguments.steps,
            seed=arguments.seed,
            method=arguments.method,
            sampler=arguments.sampler,
            settings=guidance,
            device=device,
            **options,
            **_kept_for_pictures(arguments, guidance),
        )
    except KeyboardInterrupt:
        complain("interrupted; nothing was written")
        return INTERRUPTED
    if result.skipped:
        complain(f"warning: {result.skipped} steps had a gradient that was not finite and were not guided")
    print(
        f"wrote {save_image(result.image, out)} "
        f"({result.evaluations} model evaluations, {result.backwards} backward passes)"
    )
    if guidance.schedule.mode == "adaptive" and arguments.method == "gradpaint":
        print(result.stop)
    if arguments.pictures is not None:
        _write_pictures(arguments.pictures, result, hole)
    return 0


def _output_file(arguments: argparse.Namespace) -> Path:
    """Return the file to write, or raise ValueError before anything is computed if that is impossible."""
    out = arguments.out or Path(f"{arguments.image.stem}_gradpaint.png")
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out} does not end in .png; results are saved as PNG")
    if out.resolve() in (arguments.image.resolve(), arguments.mask.resolve()):
        raise ValueError(f"--out {out} would overwrite the input; choose another name")
    shared.check_folder(out.parent, "--out")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a PNG file")
    return out


def _check_method(arguments: argparse.Namespace, options: Mapping[str, object]) -> None:
    """Raise ValueError before anything is computed if an option does not belong to the method."""
    method = methods.get_method(arguments.method)
    for name in options:
        if name not in method.options:
            raise ValueError(f"--{name.replace('_', '-')} is not an option of --method {method.name}")
    if arguments.pictures is not None and "keep_x0" not in method.extras:
        drawable = ", ".join(name for name in METHODS if "keep_x0" in methods.METHODS[name].extras)
        raise ValueError(f"--pictures can't show --method {method.name}; it can show {drawable}")


class _Kept(TypedDict, total=False):
    """Keywords of `inpaint`: the steps whose estimates and gradients the run keeps."""

    keep_x0: list[int]
    keep_gradients: list[int]


def _kept_for_pictures(arguments: argparse.Namespace, guidance: GuidanceSettings) -> _Kept:
    """Return what the run must keep for --pictures."""
    if arguments.pictures is None:
        return {}
    from ..drawing.run_pictures import spread
    from ..method.plan import step_kinds
    from ..method.record import StepKind

    shared.check_folder(arguments.pictures, "--pictures")
    schedule = methods.get_method(arguments.method).schedule or guidance.schedule
    kinds = step_kinds(dataclasses.replace(guidance, schedule=schedule), arguments.steps)
    guided = [i for i, kind in enumerate(kinds) if kind is StepKind.GUIDED]
    return {"keep_x0": spread(range(arguments.steps)), "keep_gradients": spread(guided)}


def _write_pictures(folder: Path, result: InpaintResult, hole: Tensor) -> None:
    from ..drawing.run_pictures import pictures_of

    pictures = pictures_of(result.record, hole, "Losses of the model's estimate, before compositing")
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    print(f"wrote {', '.join(f'{name}.png' for name in pictures)} to {folder}")


def mask(arguments: argparse.Namespace) -> int:
    """Run `gradpaint mask`."""
    from ..image.files import save_mask
    from ..masks import make_mask

    height, width = arguments.size
    hole = make_mask(arguments.kind, height, width, arguments.seed, **shared.mask_options(arguments))
    print(f"wrote {save_mask(hole, arguments.out)}: {hole.mean().item():.1%} to repaint")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Bad input gives one line on stderr and exit code 2, never a traceback.
    """
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        complain("interrupted; nothing was written")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gradpaint"):
            raise
        complain(f"the Python package {error.name} is missing: pip install {error.name}")
    except (ValueError, OSError, MemoryError) as error:
        complain(" ".join(str(error).split()) or "out of memory")
    except RuntimeError as error:
        if "out of memory" not in str(error) and "allocate" not in str(error):
            raise
        complain("out of memory; use a smaller image or --device cpu")
    return BAD_INPUT
