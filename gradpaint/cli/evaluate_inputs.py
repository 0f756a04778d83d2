"""What `gradpaint evaluate` makes of its arguments: data sets, models, networks, blocks."""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.block import Block, Scoring
from ..evaluation.conditioning import FOLDERS
from ..evaluation.dataset import SCENES, Cases
from ..evaluation.fid import Features, load_callable, load_features, missing_features
from ..evaluation.methodspec import MethodSpec
from ..evaluation.runner import Codec, Denoiser, Setup
from ..latent_diffusion import LatentDiffusionDenoiser, is_latent_diffusion
from ..models import bundled_model_path
from . import arguments as shared
from .evaluate_models import Models, num_classes

PAPER_SIZE = 256  # of images without a model


@dataclass(frozen=True)
class Inputs:
    """What belongs to one data set; None where it was not given.

    Attributes:
        data: folder of images; None: the held-out scenes.
        model: checkpoint.
        labels: a CSV of classes, or `conditioning.FOLDERS`.
        captions: a CSV.
        fid_reference: folder of true images.
        codec: MODULE:CALLABLE of a latent model's encoder and decoder, in place of the model's own.
        run_model: False: no model is loaded at all.
    """

    data: Path | None = None
    model: Path | None = None
    labels: str | None = None
    captions: Path | None = None
    fid_reference: Path | None = None
    codec: str | None = None
    run_model: bool = True

    @functools.cached_property
    def latent(self) -> bool:
        """Whether the model is one of latents, as far as the file's name and its weights' names tell."""
        return self.model is not None and is_latent_diffusion(self.model)

    @classmethod
    def of_one(cls, arguments: argparse.Namespace) -> Inputs:
        """Of a command without --paper."""
        data = _single(arguments.data, "--data")
        return cls(
            data=None if data is None or data == SCENES else _folder(data, "--data", data),
            model=_path(_single(arguments.model, "--model")),
            labels=_single(arguments.labels, "--labels"),
            captions=_path(_single(arguments.captions, "--captions")),
            fid_reference=_path(_single(arguments.fid_reference, "--fid-reference")),
            codec=_single(arguments.codec, "--codec"),
        )


def inputs_by_name(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Inputs]:
    """Name of a data set -> what was given for it with NAME=...; where there is only one, without NAME= too."""
    given = {
        option: _by_name(getattr(arguments, option) or [], f"--{option.replace('_', '-')}", names)
        for option in ("data", "model", "labels", "captions", "fid_reference", "codec")
    }
    data = given["data"]
    for option, values in given.items():
        missing = [name for name in values if name not in data]
        if missing:
            flag = option.replace("_", "-")
            raise ValueError(f"--{flag} without --data; with --paper both name a data set: --data {missing[0]}=FOLDER")
    return {
        name: Inputs(
            data=_folder(folder, "--data", f"{name}={folder}"),
            model=_path(given["model"].get(name)),
            labels=given["labels"].get(name),
            captions=_path(given["captions"].get(name)),
            fid_reference=_path(given["fid_reference"].get(name)),
            codec=given["codec"].get(name),
            run_model=name in given["model"],
        )
        for name, folder in data.items()
    }


def _by_name(values: Sequence[str], option: str, names: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals and len(names) == 1:
            name, rest = names[0], value
        if not name or not rest:
            raise ValueError(f"{option} {value!r} is not NAME=PATH; names are {', '.join(names)}")
        if name in pairs:
            raise ValueError(f"{option} names {name} twice")
        pairs[name] = rest
    return pairs


def named_folders(pairs: Sequence[str], option: str) -> dict[str, Path]:
    """["NAME=FOLDER", ...] -> {NAME: folder}."""
    folders: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise ValueError(f"{option} {pair!r} is not NAME=PATH")
        if name in folders:
            raise ValueError(f"{option} names {name} twice")
        folders[name] = _folder(path, option, pair)
    return folders


def _folder(path: str, option: str, value: str) -> Path:
    if not Path(path).is_dir():
        raise ValueError(f"{option} {value}: {path} is not a folder")
    return Path(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _single(values: Sequence[str] | None, option: str) -> str | None:
    """The one value of an option that may be repeated with --paper only; None without it."""
    if values and len(values) > 1:
        raise ValueError(f"{option} is given {len(values)} times; only --paper takes several")
    return values[0] if values else None


def feature_network(arguments: argparse.Namespace) -> Features:
    """The network of --fid-features; ValueError with advice where it cannot be loaded."""
    try:
        return load_features(arguments.fid_features, shared.device(arguments.device))
    except ImportError as error:
        raise ValueError(str(error)) from error


def paper_scoring(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """What `Scoring` of a table of the paper has beyond the common, with the reasons for what is left out."""
    problems = {}
    if not arguments.fid:
        problems["fid"] = "give --fid, which downloads its network, or --fid with --fid-features"
    variance = None
    if name == "table8":
        problem = None if arguments.fid else missing_features(arguments.fid_features)
        if problem is None:
            variance = arguments.network if arguments.fid else feature_network(arguments)
        else:
            problems["feature_variance"] = problem
    return {
        "net": arguments.lpips_net or "alex",
        "download": False,
        "pairs": False,
        "variance_features": variance,
        "problems": problems,
    }


def build_block(
    arguments: argparse.Namespace,
    models: Models,
    inputs: Inputs,
    *,
    folder: Path,
    title: str,
    specs: list[MethodSpec],
    results: dict[str, Path],
    steps: int,
    seeds: list[int],
    count: int | None,
    mask: tuple[str, Mapping[str, Any]],
    scoring: Mapping[str, Any] | None = None,
) -> Block:
    """A block of these images with one kind of mask.

    Args:
        arguments: of the command, for what all blocks share.
        models: loads the block's model.
        inputs: the block's data set.
        folder, title, specs, results, seeds: see `Block`.
        steps: of sampling.
        count: number of images.
        mask: kind and options.
        scoring: fields of `Scoring` that are not as the command says.
    """
    denoiser = models.load(inputs)
    latent = isinstance(denoiser, LatentDiffusionDenoiser)
    if any(spec.name == "latent_copy" for spec in specs) and inputs.codec is None and not latent:
        raise ValueError("latent_copy needs --codec, a latent model's encoder and decoder, or a latent --model")
    setup = Setup(
        steps=steps,
        sampler=arguments.sampler,
        settings=shared.guidance_settings(arguments),
        batch=arguments.batch,
        device=shared.device(arguments.device),
        codec=_codec(inputs),
    )
    return Block(
        title,
        folder,
        _cases(arguments, inputs, denoiser, count, mask),
        [spec.on_latents() for spec in specs] if latent else specs,
        seeds,
        setup,
        _scoring(arguments, inputs, scoring or {}),
        _identity(arguments, inputs),
        results,
        arguments.command_line,
    )


def _cases(
    arguments: argparse.Namespace,
    inputs: Inputs,
    denoiser: Denoiser,
    count: int | None,
    mask: tuple[str, Mapping[str, Any]],
) -> Cases:
    side = PAPER_SIZE if denoiser is None else denoiser.image_size
    return Cases(
        inputs.data or SCENES,
        arguments.size or (side, side),
        count,
        *mask,
        arguments.mask_seed,
        arguments.masks,
        inputs.labels,
        num_classes(denoiser),
        inputs.captions,
    )


def _scoring(arguments: argparse.Namespace, inputs: Inputs, changes: Mapping[str, Any]) -> Scoring:
    common: dict[str, Any] = {
        "net": arguments.lpips_net or "squeeze",
        "features": arguments.network if arguments.fid else None,
        "fid_reference": inputs.fid_reference,
        "baseline": arguments.baseline,
        "sheets": arguments.sheet,
    }
    return Scoring(**common | dict(changes))


def _identity(arguments: argparse.Namespace, inputs: Inputs) -> dict[str, Any]:
    identity = {
        "data": str(inputs.data.resolve()) if inputs.data else SCENES,
        "model": fingerprint(inputs.model or bundled_model_path()) if inputs.run_model else None,
        "masks": str(arguments.masks.resolve()) if arguments.masks else None,
        "label": arguments.label,
        "codec": inputs.codec,
    }
    if inputs.labels is not None:
        identity["labels"] = inputs.labels if inputs.labels == FOLDERS else fingerprint(Path(inputs.labels))
    if inputs.captions is not None:
        identity["captions"] = fingerprint(inputs.captions)
    return identity


def _codec(inputs: Inputs) -> Codec | None:
    return load_callable(inputs.codec, "--codec")() if inputs.codec else None


def fingerprint(path: Path) -> str:
    """Name and the start of the SHA-256 of a file, so that results of two never mix."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"{path.name} {digest.hexdigest()[:16]}"
