"""Shared by the commands of `gradpaint`: argument types, groups of options, and the objects made from them.

torch is imported only when a model or a device is needed, so that --help is quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ..masks import MASK_KINDS as MASK_KINDS  # for the commands, as what follows
from ..method import settings

if TYPE_CHECKING:
    import torch

    from ..guided_diffusion import GuidedDiffusionDenoiser
    from ..latent_diffusion import LatentDiffusionDenoiser
    from ..sampling.run import InpaintResult

SAMPLERS = ("ddpm", "ddim")
Options = dict[str, tuple[Callable[[str], "float | str"], str]]  # name -> type, help
MASK_OPTIONS: Options = {
    "coverage": (float, "box, ellipse, coverage: share of the image to repaint, 0-1"),
    "probability": (float, "random_pixels: share of the pixels to repaint, 0-1 (default 0.8)"),
    "position": (str, "box, ellipse: center or random"),
    "side": (str, "half: left, right, top or bottom"),
    "strokes": (str, "coverage: thin, medium or thick"),
    "left": (int, "outpaint: pixels"),
    "right": (int, "outpaint: pixels"),
    "top": (int, "outpaint: pixels"),
    "bottom": (int, "outpaint: pixels"),
}
BAD_INPUT, INTERRUPTED = 2, 130  # exit codes


def complain(text: str) -> None:
    """Print a message of the command to stderr."""
    print(f"gradpaint: {text}", file=sys.stderr)


def size(text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH, or one number for both."""
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH in pixels, e.g. 256x384")
    return int(sides[0]), int(sides[-1])


def seed(text: str) -> int:
    """Parse a seed."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return int(text)


def seeds(text: str) -> range | list[int]:
    """Parse a seed, or a range of them like 0..499."""
    first, dots, last = text.partition("..")
    if not dots:
        return [seed(text)]
    try:
        numbers = range(seed(first), seed(last) + 1)
    except argparse.ArgumentTypeError:
        numbers = range(0)
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of seeds, e.g. 0..499")
    return numbers


def threads(text: str) -> int:
    """Parse a number of threads."""
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads from 1 to 1024")
    return int(text)


def device(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        ValueError: this machine can't use it.
    """
    import torch

    try:
        target = torch.device(name)
        torch.zeros(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return target


def check_folder(folder: Path, name: str) -> None:
    """Create the folder for the results of option `name`, to fail before anything is computed.

    Raises:
        ValueError: it is not a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{name} {folder} is not a folder; choose another one") from error


def add_mask_options(command: argparse._ActionsContainer) -> None:
    """Add the options of `make_mask`."""
    for name, (kind, text) in MASK_OPTIONS.items():
        command.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)


def mask_options(arguments: argparse.Namespace) -> dict[str, float | str]:
    """Return the options of `make_mask` that were given."""
    return {name: getattr(arguments, name) for name in MASK_OPTIONS if hasattr(arguments, name)}


def add_guidance(command: argparse._ActionsContainer) -> None:
    """Add the options of `guidance_settings`. Their defaults are the preset's."""
    default = settings.GuidanceSettings()
    command.add_argument(
        "--preset",
        choices=settings.PRESETS,
        default="default",
        help="a whole set of settings, which the options below change; paper: losses, weights, steps and alpha of the "
        "paper; paper-l2: with eq. 9 as printed, which moves nothing visible; GradPaint-Fast: the paper's, off after "
        "half of the steps; latent-paper: the paper's for latent models, masked MSE alone",
    )
    command.add_argument(
        "--strength",
        type=float,
        help=f"how strong guidance is, independent of the number of steps; 0: off (default: {default.strength:g})",
    )
    command.add_argument("--alpha", type=float, help="step size of eq. 9, the same at every step; replaces strength")
    command.add_argument(
        "--alignment-loss",
        choices=settings.ALIGNMENT_LOSSES,
        help="the loss at the border of the hole: edge-match, this project's and the default, or alignment, the "
        "paper's eqs. 6-7",
    )
    command.add_argument(
        "--lambda-al",
        type=float,
        help=f"weight of the loss at the border (default: {default.alignment.lambda_al:g}; the paper's: "
        f"{settings.PAPER_LAMBDA_AL:g}); latent models run without it",
    )
    command.add_argument(
        "--softness",
        type=float,
        help="image gradients below this count as flat in the loss at the border; 0: eq. 7 as printed "
        f"(default: {default.alignment.softness:g})",
    )
    command.add_argument(
        "--alignment-stop",
        type=float,
        metavar="FRACTION",
        help="share of the steps after which the loss at the border is off (default: as long as the run is guided)",
    )
    command.add_argument(
        "--normalization",
        choices=settings.NORMALIZATIONS,
        help="of the gradient (default: rms); l2: eq. 9 as printed, which needs a much larger alpha",
    )
    command.add_argument(
        "--stop",
        type=_stop,
        metavar="FRACTION",
        help="guide the run up to this share of its steps; adaptive: until the loss stops falling "
        f"(relative to the noise level) (default: {default.schedule.fraction:g})",
    )


def guidance_settings(arguments: argparse.Namespace) -> settings.GuidanceSettings:
    """Make the settings from the options of `add_guidance`.

    Raises:
        ValueError: one is out of range.
    """
    base = settings.preset(arguments.preset)
    guidance = _given(strength=arguments.strength, alpha=arguments.alpha, normalization=arguments.normalization)
    if arguments.strength is not None and arguments.alpha is None:
        guidance["alpha"] = None  # otherwise the preset's alpha would override it
    alignment = _given(
        loss=arguments.alignment_loss,
        lambda_al=arguments.lambda_al,
        softness=arguments.softness,
        fraction=arguments.alignment_stop,
    )
    if alignment.get("loss", base.alignment.loss) != base.alignment.loss:  # its weight belongs to it
        paper = arguments.alignment_loss == settings.ALIGNMENT_LOSS
        alignment.setdefault("lambda_al", settings.PAPER_LAMBDA_AL if paper else settings.DEFAULT_LAMBDA_AL)
    schedule = base.schedule
    if arguments.stop is not None:
        adaptive = arguments.stop == "adaptive"
        schedule = (
            settings.GuideSchedule(mode="adaptive") if adaptive else settings.GuideSchedule(fraction=arguments.stop)
        )
    return dataclasses.replace(
        base, **guidance, alignment=dataclasses.replace(base.alignment, **alignment), schedule=schedule
    )


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _stop(text: str) -> str | float:
    if text == "adaptive":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a share of the run, 0 to 1, nor adaptive") from None


def add_model_details(command: argparse._ActionsContainer) -> None:
    """Add the options that `load_model` uses."""
    unknown = "if the file doesn't show it"
    command.add_argument("--label", type=int, help="class, for a class-conditional model")
    command.add_argument("--head-channels", type=int, help=f"channels per attention head, {unknown}")
    command.add_argument("--noise-schedule", choices=["linear", "cosine"], help=f"of the model, {unknown}")
    command.add_argument("--attention-order", choices=["legacy", "new"], help=f"of the model, {unknown}")


def load_model(
    arguments: argparse.Namespace, path: str | Path | None, device: str | torch.device
) -> GuidedDiffusionDenoiser:
    """Load a checkpoint (None: the bundled model) with the options of `add_model_details`."""
    from ..guided_diffusion import load_denoiser
    from ..models import bundled_model_path

    return load_denoiser(
        path or bundled_model_path(),
        device=device,
        label=arguments.label,
        num_head_channels=arguments.head_channels,
        noise_schedule=arguments.noise_schedule,
        use_new_attention_order=None if arguments.attention_order is None else arguments.attention_order == "new",
    )


def load_any_model(
    arguments: argparse.Namespace, path: str | Path | None, device: str | torch.device, labeled: bool = False
) -> tuple[GuidedDiffusionDenoiser | LatentDiffusionDenoiser, Callable[..., InpaintResult]]:
    """Load a model of pixels or, if the file is one, of latents.

    Args:
        arguments: With the options of `add_model_details`.
        path: The checkpoint; None: the bundled model.
        device: Where it runs.
        labeled: Each image brings its own class, so a class-conditional model needs none here.

    Returns:
        The model, and the `inpaint_image` that runs it.
    """
    from ..latent_diffusion import is_latent_diffusion

    if path is not None and is_latent_diffusion(path):
        from ..latent_diffusion import inpaint_image as inpaint_latents

        return _load_latent_model(arguments, path, device, labeled), inpaint_latents
    from ..sampling.inpaint_image import inpaint_image

    return load_model(arguments, path, device), inpaint_image


def _load_latent_model(
    arguments: argparse.Namespace, path: str | Path, device: str | torch.device, labeled: bool
) -> LatentDiffusionDenoiser:
    from ..latent_diffusion import check_label, load_latent_diffusion

    for name in ("noise_schedule", "attention_order"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for guided-diffusion models, but {path} is a latent one")
    denoiser = load_latent_diffusion(path, device, label=arguments.label, num_head_channels=arguments.head_channels)
    if not labeled or denoiser.config.num_classes is None:
        check_label(arguments.label, denoiser.config)
    return denoiser
