"""`gradpaint evaluate`: methods over a folder of images, scored in one table; the paper's tables with --paper."""

import hashlib
import shlex
import sys
from pathlib import Path

from ..sampling.methods import METHODS
from . import arguments as shared

PAPER = ("table1", "table2", "table3", "table4", "table7", "table8", "table9", "fig9")  # evaluation.paper.LAYOUTS
NETS = ("squeeze", "alex", "vgg", "none")
DEFAULT_METHODS = ("combine_image", "gradpaint")
STEPS = 30
SUMMARY = "compare methods on a folder of images: quality, cost, contact sheets; the paper's tables"


def add_arguments(command):
    """Everything about `gradpaint evaluate --help`."""
    data = command.add_argument_group("images and masks")
    data.add_argument(
        "--data",
        action="append",
        metavar="[NAME=]FOLDER",
        help="images of any size, cropped and resized (without it: the held-out scenes of the bundled "
        "model); with --paper NAME=FOLDER, once per data set",
    )
    data.add_argument("--n", type=int, help="number of images (default: all; scenes: 32, with --paper 8)")
    data.add_argument("--size", type=shared.size, metavar="HxW", help="of the images (default: the model's)")
    data.add_argument(
        "--mask", choices=shared.MASK_KINDS, default="thick", metavar="KIND", help=", ".join(shared.MASK_KINDS)
    )
    shared.add_mask_options(data)
    data.add_argument("--mask-seed", type=shared.seed, default=0, help="another seed, other masks")
    data.add_argument("--masks", type=Path, metavar="FOLDER", help="masks from files named as the images, white = hole")
    methods = command.add_argument_group("methods")
    methods.add_argument(
        "--methods",
        nargs="+",
        default=list(DEFAULT_METHODS),
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"{', '.join(METHODS)}; e.g. repaint:steps=250,resamplings=10 gradpaint:stop=0.25",
    )
    methods.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another method's finished pictures, named as the images; may be repeated",
    )
    methods.add_argument("--seeds", type=shared.seed, nargs="+", help="of the noise; several also show the diversity")
    methods.add_argument("--steps", type=int, help=f"sampling steps (default {STEPS}; with --paper and data 100)")
    methods.add_argument(
        "--sampler", choices=shared.SAMPLERS, default="ddpm", help="ddpm adds fresh noise, ddim does not"
    )
    methods.add_argument(
        "--codec",
        metavar="MODULE:CALLABLE",
        help="for latent_copy: returns a latent model's (encode, decode), images in [-1, 1]",
    )
    shared.add_guidance(command.add_argument_group("guidance"))
    model = command.add_argument_group("model")
    model.add_argument(
        "--model",
        action="append",
        metavar="[NAME=]FILE",
        help="guided-diffusion checkpoint (without it: the bundled 64x64 model)",
    )
    shared.add_model_details(model)
    model.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    model.add_argument("--batch", type=int, default=4, help="images at a time")
    model.add_argument("--threads", type=shared.threads, help="CPU threads")
    scores = command.add_argument_group("scores")
    scores.add_argument("--baseline", metavar="NAME", help="for paired differences (default: the first method)")
    scores.add_argument("--lpips-net", choices=NETS, default="squeeze", help="none: leave LPIPS out")
    scores.add_argument("--fid", action="store_true", help="Frechet inception distance; for many images")
    scores.add_argument("--fid-reference", type=Path, metavar="FOLDER", help="true images (default: the images used)")
    scores.add_argument(
        "--fid-features",
        default="inception",
        metavar="NETWORK",
        help="inception, a TorchScript file, or MODULE:CALLABLE, (B, 3, H, W) in [-1, 1] to (B, D)",
    )
    scores.add_argument("--sheet", type=int, default=8, metavar="N", help="images on contact sheets, 0: none")
    command.add_argument(
        "--out",
        type=Path,
        help="folder; the same command goes on where it was interrupted "
        "(default gradpaint_evaluation, with --paper gradpaint_NAME)",
    )
    command.add_argument("--paper", choices=PAPER, metavar="TABLE", help=f"the paper's rows: {', '.join(PAPER)}")
    command.add_argument(
        "--paper-numbers",
        type=Path,
        metavar="CSV",
        help="the paper's numbers to show beside ours; each --paper run writes the empty form, paper_numbers.csv",
    )


def evaluate(arguments):
    import torch

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    for name, least in (("n", 1), ("steps", 1), ("batch", 1), ("sheet", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}; it must be at least {least}")
    repeated = {seed for seed in arguments.seeds or [] if arguments.seeds.count(seed) > 1}
    if repeated:
        raise ValueError(f"--seeds names {repeated.pop()} twice")
    if arguments.fid:
        arguments.network = _feature_network(arguments)
    arguments.command_line = shlex.join(["gradpaint", *sys.argv[1:]])
    out = arguments.out or Path(f"gradpaint_{arguments.paper or 'evaluation'}")
    shared.check_folder(out, "--out")
    try:
        return _paper(arguments, out) if arguments.paper else _one(arguments, out)
    except KeyboardInterrupt:
        shared.complain(f"interrupted; what is finished is kept in {out}. The same command goes on from there")
        return shared.INTERRUPTED


def _feature_network(arguments):
    from ..evaluation.fid import load_features

    try:
        return load_features(arguments.fid_features, shared.device(arguments.device))
    except ImportError as error:
        raise ValueError(str(error)) from error


def _one(arguments, out):
    """One folder of images, one kind of mask."""
    from ..evaluation.block import Evaluation
    from ..evaluation.methodspec import parse_method

    model = _Models(arguments)
    block = _block(
        arguments,
        model,
        out,
        "evaluation",
        _single(arguments.data, "--data"),
        _single(arguments.model, "--model"),
        [parse_method(text) for text in arguments.methods],
        _named(arguments.results, "--results"),
        steps=arguments.steps or STEPS,
        seeds=arguments.seeds or [0],
        count=arguments.n,
        masks=(arguments.mask, shared.mask_options(arguments)),
        sheets=arguments.sheet,
    )
    evaluation = Evaluation(block)
    evaluation.run(model.denoiser)
    print(evaluation.text())
    print(f"written to {out}: results.md, results.csv, images/, inputs/, masks/" + ", sheets" * (arguments.sheet > 0))
    return 0


def _paper(arguments, out):
    """The rows of one of the paper's tables, on the data given or on the stand-in."""
    from ..evaluation import paper
    from ..evaluation.block import Evaluation
    from ..evaluation.paper_run import PAPER_STEPS, STAND_IN_STEPS, PaperRun

    given = arguments.mask != "thick" or arguments.masks or shared.mask_options(arguments)
    if given or arguments.methods != list(DEFAULT_METHODS):
        raise ValueError("--mask, its options, --masks and --methods are given by --paper's table; leave them out")
    layout = paper.LAYOUTS[arguments.paper]
    data = _named(arguments.data or [], "--data")
    models = _named(arguments.model or [], "--model") if data else {}
    without = [name for name in data if name not in models]
    if without:
        raise ValueError(f"--data names {without[0]}, but there is no --model {without[0]}=CHECKPOINT")
    if arguments.model and not data:
        raise ValueError("--model without --data; with --paper a model goes with a data set, both NAME=PATH")
    numbers = paper.read_numbers(arguments.paper_numbers) if arguments.paper_numbers else {}
    codec = _codec(arguments)
    plan = PaperRun(layout, out, data, numbers, codec, _named(arguments.results, "--results"), arguments.command_line)
    steps = arguments.steps or (PAPER_STEPS if data else STAND_IN_STEPS)
    loaded, planned = _Models(arguments), []
    for dataset, mask, folder, title in plan.blocks():
        block = _block(
            arguments,
            loaded,
            folder,
            title,
            data.get(dataset),
            models.get(dataset),
            plan.specs(dataset),
            plan.results_of(folder),
            steps=steps,
            seeds=arguments.seeds or list(range(layout.seeds)),
            count=arguments.n or (None if data else 8),
            masks=(mask.kind, dict(mask.options)),
            sheets=arguments.sheet,
        )
        planned.append((dataset, mask, models.get(dataset), Evaluation(block)))
    try:
        for dataset, mask, model, evaluation in planned:
            evaluation.run(loaded.load(model))
            plan.add(dataset, mask, evaluation)
    except KeyboardInterrupt:
        plan.add(dataset, mask, evaluation)
        plan.write()
        raise
    page = plan.write()
    print(page.read_text(encoding="utf-8"))
    print(f"written to {out}: {page.name}, paper_numbers.csv, and each block's results in its folder")
    return 0


class _Models:
    """Loads a checkpoint once for all blocks that follow each other with it."""

    def __init__(self, arguments):
        self.arguments, self.denoiser, self._path = arguments, None, "none yet"

    def load(self, path):
        if path != self._path:
            self.denoiser = shared.load_model(self.arguments, path, shared.device(self.arguments.device))
            self._path = path
        return self.denoiser


def _block(arguments, models, folder, title, data, model, specs, results, *, steps, seeds, count, masks, sheets):
    from ..evaluation.block import Block, Scoring
    from ..evaluation.dataset import SCENES, Cases
    from ..evaluation.runner import Setup

    needs_codec = [spec for spec in specs if spec.name == "latent_copy"]
    if needs_codec and not arguments.codec:
        raise ValueError("latent_copy needs --codec, a latent model's encoder and decoder")
    denoiser = models.load(model)
    size = arguments.size or (denoiser.image_size, denoiser.image_size)
    kind, options = masks
    cases = Cases(data or SCENES, size, count, kind, options, arguments.mask_seed, arguments.masks)
    setup = Setup(
        steps=steps,
        sampler=arguments.sampler,
        settings=shared.guidance_settings(arguments),
        batch=arguments.batch,
        device=shared.device(arguments.device),
        codec=_codec(arguments),
    )
    scoring = Scoring(
        net=arguments.lpips_net,
        features=arguments.network if arguments.fid else None,
        fid_reference=arguments.fid_reference,
        baseline=arguments.baseline,
        sheets=sheets,
    )
    identity = {
        "data": str(Path(data).resolve()) if data else SCENES,
        "model": _fingerprint(model),
        "masks": str(arguments.masks.resolve()) if arguments.masks else None,
        "label": arguments.label,
        "codec": arguments.codec,
    }
    return Block(title, folder, cases, specs, seeds, setup, scoring, identity, results, arguments.command_line)


def _codec(arguments):
    from ..evaluation.fid import load_callable

    return load_callable(arguments.codec, "--codec")() if arguments.codec else None


def _fingerprint(model):
    """Name and the start of the SHA-256 of a checkpoint, so that two models' results never mix."""
    from ..models import bundled_model_path

    path = Path(model) if model else bundled_model_path()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"{path.name} {digest.hexdigest()[:16]}"


def _named(pairs, option):
    """["NAME=PATH", ...] -> {NAME: Path}."""
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise ValueError(f"{option} {pair!r} is not NAME=PATH")
        if name in found:
            raise ValueError(f"{option} names {name} twice")
        found[name] = Path(path)
        if option != "--model" and not found[name].is_dir():
            raise ValueError(f"{option} {pair}: {path} is not a folder")
    return found


def _single(values, option):
    """The one path of an option that may be repeated with --paper only; None without it."""
    if values and len(values) > 1:
        raise ValueError(f"{option} is given {len(values)} times; only --paper takes several")
    value = values[0] if values else None
    return None if value == "scenes" and option == "--data" else value
