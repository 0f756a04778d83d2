"""The `gradpaint` command. torch is imported only by the commands that need it, so that --help is quick."""

import argparse
import sys
import time
from pathlib import Path

from . import __version__, settings

METHODS = ("gradpaint", "combine_image", "combine_noisy")
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


def build_parser():
    parser = argparse.ArgumentParser(
        prog="gradpaint", description="Training-free inpainting with any diffusion model, guided by gradients."
    )
    parser.add_argument("--version", action="version", version=f"gradpaint {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_inpaint(commands)
    _add_mask(commands)
    return parser


def _command(commands, name, run, text):
    command = commands.add_parser(
        name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    command.set_defaults(run=run)
    return command


def _add_run_arguments(command, steps, sampler):
    command.add_argument("--steps", type=int, default=steps, help="sampling steps")
    command.add_argument("--sampler", choices=SAMPLERS, default=sampler, help="ddpm adds fresh noise, ddim does not")
    command.add_argument("--seed", type=_seed, default=0, help="same seed, same picture")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")


def _add_demo(commands):
    command = _command(commands, "demo", demo, "show GradPaint on scenes that the bundled model has never seen")
    command.add_argument("--out", type=Path, default=Path("gradpaint_demo"), help="folder for the results")
    command.add_argument("--n", type=int, default=8, help="number of images")
    command.add_argument("--mask", choices=MASK_KINDS, default="thick", metavar="KIND", help=", ".join(MASK_KINDS))
    command.add_argument("--threads", type=_threads, default=1,
                         help="CPU threads; more save little on so small a model, and lose much on a busy machine")
    _add_run_arguments(command, steps=30, sampler="ddpm")


def _add_inpaint(commands):
    command = _command(commands, "inpaint", inpaint, "repaint the white part of MASK in IMAGE")
    command.add_argument("image", type=Path, metavar="IMAGE", help="picture to repair")
    command.add_argument("mask", type=Path, metavar="MASK", help="same size; white is repainted, black is kept")
    command.add_argument("--model", type=Path, help="guided-diffusion checkpoint (without it: the bundled 64x64 model)")
    command.add_argument("--out", type=Path, help="PNG to write (without it: IMAGE's name with _gradpaint, here)")
    command.add_argument("--method", choices=METHODS, default="gradpaint", help="combine_image is GradPaint unguided")
    _add_run_arguments(command, steps=50, sampler="ddpm")
    command.add_argument("--alpha", type=float, default=settings.DEFAULT_ALPHA, help="step size of the guidance")
    command.add_argument("--lambda-al", type=float, default=settings.DEFAULT_LAMBDA_AL,
                         help="weight of the alignment loss")
    command.add_argument("--softness", type=float, default=settings.DEFAULT_SOFTNESS,
                         help="image gradients below this count as flat in the alignment loss; 0: eq. 7 to the letter")
    command.add_argument("--normalization", choices=settings.NORMALIZATIONS, default="rms",
                         help="of the gradient; l2: eq. 9 to the letter, needs a far larger alpha")
    command.add_argument("--stop", type=float, default=settings.DEFAULT_FRACTION, metavar="FRACTION",
                         help="guide this share of the run, from its start")
    command.add_argument("--label", type=int, help="class, for a class-conditional model")
    command.add_argument("--head-channels", type=int, help="channels per attention head, where the file can't tell")
    command.add_argument("--noise-schedule", choices=["linear", "cosine"], help="where the file can't tell")
    command.add_argument("--attention-order", choices=["legacy", "new"], help="where the file can't tell")
    command.add_argument("--invert-mask", action="store_true", help="repaint the black part instead")


def _add_mask(commands):
    command = _command(commands, "mask", mask, "draw a mask, white = repaint")
    command.add_argument("kind", choices=MASK_KINDS, metavar="KIND", help=", ".join(MASK_KINDS))
    command.add_argument("--size", type=_size, default=(256, 256), metavar="HxW", help="height x width in pixels")
    command.add_argument("--seed", type=_seed, default=0, help="same seed, same mask")
    command.add_argument("--out", type=Path, default=Path("mask.png"), help="PNG to write")
    for name, (kind, text) in MASK_OPTIONS.items():
        command.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)


def _size(text):
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH in pixels, e.g. 256x384")
    return int(parts[0]), int(parts[-1])


def _seed(text):
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return int(text)


def _threads(text):
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads, 1 to 1024")
    return int(text)


def _device(name):
    """torch.device that exists on this machine."""
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _bundled_model():
    from .models import bundled_model_path

    return bundled_model_path()


def demo(arguments):
    import torch

    from .demo import metrics_table, run_demo

    torch.set_num_threads(arguments.threads)
    _check_folder(arguments.out, "--out")
    started = time.perf_counter()
    try:
        metrics = run_demo(
            arguments.out, seed=arguments.seed, steps=arguments.steps, count=arguments.n, mask_kind=arguments.mask,
            sampler=arguments.sampler, device=_device(arguments.device),
        )
    except KeyboardInterrupt:
        kept = len(list(arguments.out.glob("results/*.png")))
        _complain(f"interrupted; {kept} finished pictures are kept in {arguments.out / 'results'}")
        return INTERRUPTED
    print(f"{arguments.n} held-out scenes, {arguments.mask} masks, {arguments.steps} steps, same noise for both:")
    print(metrics_table(metrics))
    print(f"written to {arguments.out} in {time.perf_counter() - started:.0f} s: contact_sheet.png, loss.png, "
          "metrics.json, results/")
    return 0


def inpaint(arguments):
    from .guided_diffusion import load_denoiser
    from .imageio import load_image, load_mask, save_image
    from .inpaint_file import inpaint_image, size_warning

    guidance = settings.GuidanceSettings(
        alpha=arguments.alpha,
        normalization=arguments.normalization,
        alignment=settings.AlignmentSettings(lambda_al=arguments.lambda_al, softness=arguments.softness),
        schedule=settings.GuideSchedule(mode="fraction", fraction=arguments.stop),
    )
    out = arguments.out or Path(f"{arguments.image.stem}_gradpaint.png")
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out} does not end in .png; results are saved as PNG")
    if out.resolve() in (arguments.image.resolve(), arguments.mask.resolve()):
        raise ValueError(f"--out {out} would overwrite the input; choose another name")
    _check_folder(out.parent, "--out")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a PNG file")
    image = load_image(arguments.image)
    hole = load_mask(arguments.mask, size=image.shape[2:], invert=arguments.invert_mask)
    device = _device(arguments.device)
    denoiser = load_denoiser(
        arguments.model or _bundled_model(), device=device, label=arguments.label,
        num_head_channels=arguments.head_channels, noise_schedule=arguments.noise_schedule,
        use_new_attention_order=None if arguments.attention_order is None else arguments.attention_order == "new",
    )
    warning = size_warning(*image.shape[2:], denoiser.image_size)
    if warning:
        _complain(f"warning: {warning}")
    try:
        result = inpaint_image(
            denoiser, image, hole, steps=arguments.steps, seed=arguments.seed, method=arguments.method,
            sampler=arguments.sampler, settings=guidance, device=device,
        )
    except KeyboardInterrupt:
        _complain("interrupted; nothing was written")
        return INTERRUPTED
    if result.skipped_nudges:
        _complain(f"warning: {result.skipped_nudges} steps had a gradient that was not finite and ran unguided")
    print(f"written to {save_image(result.image, out)} "
          f"({result.evaluations} model evaluations, {result.backwards} of them differentiated)")
    return 0


def mask(arguments):
    from .imageio import save_mask
    from .masks import make_mask

    options = {name: getattr(arguments, name) for name in MASK_OPTIONS if hasattr(arguments, name)}
    drawn = make_mask(arguments.kind, *arguments.size, seed=arguments.seed, **options)
    print(f"written to {save_mask(drawn, arguments.out)}: {drawn.mean().item():.1%} to repaint")
    return 0


def _check_folder(folder, name):
    """Before anything is computed: can results go there?"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{name} {folder} is not a folder; choose another one") from error


def _complain(text):
    print(f"gradpaint: {text}", file=sys.stderr)


def main(argv=None):
    """Run the command; returns the exit code. Bad input is one line on stderr and exit code 2, never a traceback."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        _complain("interrupted; nothing was written")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gradpaint"):
            raise
        _complain(f"the Python package {error.name} is missing: pip install {error.name}")
    except (ValueError, OSError, MemoryError) as error:
        _complain(" ".join(str(error).split()) or "out of memory")
    except RuntimeError as error:
        if "out of memory" not in str(error) and "allocate" not in str(error):
            raise
        _complain("out of memory; use a smaller image or --device cpu")
    return BAD_INPUT
