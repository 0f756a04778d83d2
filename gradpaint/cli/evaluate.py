"""`gradpaint evaluate`: methods over a folder of images, scored in one table; the paper's tables with --paper."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..sampling.methods import METHODS
from . import arguments as shared

# The names of evaluation.paper.layouts.LAYOUTS, here so that --help does not import torch.
TABLES = ("table1", "table2", "table3", "table4", "table7", "table8", "table9", "fig9")
FIGURES = ("fig2", "fig3a", "fig3b", "fig10")
PAPER = (*TABLES, *FIGURES)
NETS = ("squeeze", "alex", "vgg", "none")
DEFAULT_METHODS = ("combine_image", "gradpaint")
STEPS = 30
SUMMARY = "compare methods on a folder of images: quality, cost, contact sheets; the paper's tables"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add everything that `gradpaint evaluate --help` lists."""
    _add_data(command.add_argument_group("images and masks"))
    _add_methods(command.add_argument_group("methods"))
    shared.add_guidance(command.add_argument_group("guidance"))
    _add_model(command.add_argument_group("model"))
    _add_scores(command.add_argument_group("scores"))
    command.add_argument(
        "--out",
        type=Path,
        help="folder; the same command goes on where it was interrupted "
        "(default gradpaint_evaluation, with --paper gradpaint_NAME)",
    )
    command.add_argument(
        "--paper", choices=PAPER, metavar="NAME", help=f"a table or figure of the paper: {', '.join(PAPER)}"
    )
    command.add_argument(
        "--paper-numbers",
        type=Path,
        metavar="CSV",
        help="numbers to show in place of the paper's; each --paper run writes those it shows, paper_numbers.csv",
    )


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        action="append",
        metavar="[NAME=]FOLDER",
        help="images of any size, cropped and resized (without it: the held-out scenes of the bundled "
        "model); with --paper NAME=FOLDER, once per data set",
    )
    group.add_argument("--n", type=int, help="number of images (default: all; scenes: 32, with --paper 8)")
    group.add_argument("--size", type=shared.size, metavar="HxW", help="of the images (default: the model's)")
    group.add_argument(
        "--mask", choices=shared.MASK_KINDS, default="thick", metavar="KIND", help=", ".join(shared.MASK_KINDS)
    )
    shared.add_mask_options(group)
    group.add_argument("--mask-seed", type=shared.seed, default=0, help="another seed, other masks")
    group.add_argument(
        "--masks", type=Path, metavar="FOLDER", help="masks from files named as the images, white = hole"
    )
    group.add_argument(
        "--labels",
        action="append",
        metavar="[NAME=]CSV",
        help="each image's class, for a class-conditional model: a CSV with the columns file and label, or the word "
        "folders where each image lies in a folder of its class",
    )
    group.add_argument(
        "--captions",
        action="append",
        metavar="[NAME=]CSV",
        help="each image's caption, a CSV with the columns file and caption; written beside the results, for text "
        "models that run elsewhere",
    )


def _add_methods(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"{', '.join(METHODS)}; e.g. repaint:steps=250,resamplings=10 gradpaint:stop=0.25 "
        f"(default {' '.join(DEFAULT_METHODS)}; with --paper: rows to add to the paper's)",
    )
    group.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another method's finished pictures, named as the images; may be repeated",
    )
    group.add_argument(
        "--seeds",
        type=shared.seeds,
        nargs="+",
        help="of the noise, each a number or a range like 0..499; several also show the diversity",
    )
    group.add_argument("--steps", type=int, help=f"sampling steps (default {STEPS}; with --paper and data 100)")
    group.add_argument(
        "--sampler", choices=shared.SAMPLERS, default="ddpm", help="ddpm adds fresh noise, ddim does not"
    )
    group.add_argument(
        "--codec",
        action="append",
        metavar="[NAME=]MODULE:CALLABLE",
        help="for latent_copy: returns a latent model's (encode, decode), images in [-1, 1] (default: those of "
        "a latent --model)",
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        action="append",
        metavar="[NAME=]FILE",
        help="guided-diffusion or latent diffusion (CompVis, VQ) checkpoint (without it: the bundled 64x64 model)",
    )
    shared.add_model_details(group)
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    group.add_argument("--batch", type=int, default=4, help="images at a time")
    group.add_argument("--threads", type=shared.threads, help="CPU threads")


def _add_scores(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--baseline", metavar="NAME", help="for paired differences (default: the first method)")
    group.add_argument(
        "--lpips-net",
        choices=NETS,
        help="none: leave LPIPS out (default squeeze; with --paper alex, which is never downloaded)",
    )
    group.add_argument("--fid", action="store_true", help="Frechet inception distance; for many images")
    group.add_argument(
        "--fid-reference", action="append", metavar="[NAME=]FOLDER", help="true images (default: the images used)"
    )
    group.add_argument(
        "--fid-features",
        default="inception",
        metavar="NETWORK",
        help="inception, a TorchScript file, or MODULE:CALLABLE, (B, 3, H, W) in [-1, 1] to (B, D); for table8 too",
    )
    group.add_argument("--sheet", type=int, default=8, metavar="N", help="images on contact sheets, 0: none")


def evaluate(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    import torch

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    for name, least in (("n", 1), ("steps", 1), ("batch", 1), ("sheet", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}; it must be at least {least}")
    arguments.seeds = [seed for part in arguments.seeds or [] for seed in part]
    if len(set(arguments.seeds)) < len(arguments.seeds):
        repeated = next(seed for seed in arguments.seeds if arguments.seeds.count(seed) > 1)
        raise ValueError(f"--seeds names {repeated} twice")
    arguments.command_line = shlex.join(["gradpaint", *sys.argv[1:]])
    out = arguments.out or Path(f"gradpaint_{arguments.paper or 'evaluation'}")
    shared.check_folder(out, "--out")
    try:
        return _run(arguments, out)
    except KeyboardInterrupt:
        shared.complain(f"interrupted; what is finished is kept in {out}. The same command goes on from there")
        return shared.INTERRUPTED


def _run(arguments: argparse.Namespace, out: Path) -> int:
    from .evaluate_inputs import feature_network

    if arguments.fid:
        arguments.network = feature_network(arguments)
    if not arguments.paper:
        return _one(arguments, out)
    from .evaluate_paper import figure, table

    return (figure if arguments.paper in FIGURES else table)(arguments, out)


def _one(arguments: argparse.Namespace, out: Path) -> int:
    """One folder of images, one kind of mask."""
    from ..evaluation.block import Evaluation
    from ..evaluation.methodspec import parse_method
    from .evaluate_inputs import Inputs, build_block, named_folders
    from .evaluate_models import Models

    models = Models(arguments)
    block = build_block(
        arguments,
        models,
        Inputs.of_one(arguments),
        folder=out,
        title="evaluation",
        specs=[parse_method(text) for text in arguments.methods or DEFAULT_METHODS],
        results=named_folders(arguments.results, "--results"),
        steps=arguments.steps or STEPS,
        seeds=arguments.seeds or [0],
        count=arguments.n,
        mask=(arguments.mask, shared.mask_options(arguments)),
    )
    evaluation = Evaluation(block)
    evaluation.run(models.denoiser)
    print(evaluation.text())
    print(f"written to {out}: results.md, results.csv, images/, inputs/, masks/" + ", sheets" * (arguments.sheet > 0))
    return 0
