"""What several commands of `gradpaint` share: argument types, groups of options, and what is made of them.

torch is imported only where a model or a device is needed, so that --help is quick.
"""

import argparse
import sys

from ..method import settings

SAMPLERS = ("ddpm", "ddim")
MASK_KINDS = ("thin", "medium", "thick", "random_pixels", "box", "ellipse", "half", "outpaint", "coverage")
MASK_OPTIONS = {  # option of make_mask -> type, help
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


def complain(text):
    print(f"gradpaint: {text}", file=sys.stderr)


def size(text):
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH in pixels, e.g. 256x384")
    return int(parts[0]), int(parts[-1])


def seed(text):
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return int(text)


def threads(text):
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads, 1 to 1024")
    return int(text)


def device(name):
    """torch.device that exists on this machine."""
    import torch

    try:
        found = torch.device(name)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return found


def check_folder(folder, name):
    """Before anything is computed: can results go there?"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{name} {folder} is not a folder; choose another one") from error


def add_mask_options(command):
    for name, (kind, text) in MASK_OPTIONS.items():
        command.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)


def mask_options(arguments):
    """The options of `make_mask` that were given."""
    return {name: getattr(arguments, name) for name in MASK_OPTIONS if hasattr(arguments, name)}


def add_guidance(command):
    command.add_argument(
        "--strength",
        type=float,
        default=settings.DEFAULT_STRENGTH,
        help="how hard guidance pushes, whatever the number of steps; 0: not at all",
    )
    command.add_argument(
        "--alpha", type=float, default=None, help="instead of strength: step size of eq. 9, the same at every step"
    )
    command.add_argument(
        "--lambda-al", type=float, default=settings.DEFAULT_LAMBDA_AL, help="weight of the alignment loss"
    )
    command.add_argument(
        "--softness",
        type=float,
        default=settings.DEFAULT_SOFTNESS,
        help="image gradients below this count as flat in the alignment loss; 0: eq. 7 to the letter",
    )
    command.add_argument(
        "--normalization",
        choices=settings.NORMALIZATIONS,
        default="rms",
        help="of the gradient; l2: eq. 9 to the letter, needs a far larger alpha",
    )
    command.add_argument(
        "--stop",
        type=_stop,
        default=settings.DEFAULT_FRACTION,
        metavar="FRACTION",
        help="guide this share of the run, from its start; adaptive: until the loss has stopped "
        "falling for what the noise level leaves of it",
    )


def guidance_settings(arguments):
    return settings.GuidanceSettings(
        strength=arguments.strength,
        alpha=arguments.alpha,
        normalization=arguments.normalization,
        alignment=settings.AlignmentSettings(lambda_al=arguments.lambda_al, softness=arguments.softness),
        schedule=(
            settings.GuideSchedule.adaptive()
            if arguments.stop == "adaptive"
            else settings.GuideSchedule(mode="fraction", fraction=arguments.stop)
        ),
    )


def _stop(text):
    if text == "adaptive":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a share of the run, 0 to 1, nor adaptive") from None


def add_model_details(command):
    command.add_argument("--label", type=int, help="class, for a class-conditional model")
    command.add_argument("--head-channels", type=int, help="channels per attention head, where the file can't tell")
    command.add_argument("--noise-schedule", choices=["linear", "cosine"], help="where the file can't tell")
    command.add_argument("--attention-order", choices=["legacy", "new"], help="where the file can't tell")


def load_model(arguments, path, device):
    """The checkpoint at `path` (None: the bundled model) with what `add_model_details` tells of it."""
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
