"""Reads CompVis's latent diffusion checkpoints: the shapes of all networks are inferred from the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..guided_diffusion.checkpoint import SUFFIXES as PLAIN_SUFFIXES
from ..guided_diffusion.checkpoint import check_keys, infer_shape, metadata_settings, read_file
from .compvis_config import settings_of
from .config import FirstStageConfig, LatentDiffusionConfig, LatentUNetConfig
from .first_stage import VQModel
from .unet import ClassEmbedder, LatentUNet

SUFFIXES = (".ckpt", *PLAIN_SUFFIXES)
WEIGHTS = ("auto", "ema", "model")
UNET, EMA, FIRST_STAGE, CLASSES = "model.diffusion_model.", "model_ema.", "first_stage_model.", "cond_stage_model."

# What the weights cannot tell.
_UNET_SETTINGS = ("num_head_channels", "num_heads", "dropout")
_PROCESS_SETTINGS = ("timesteps", "linear_start", "linear_end", "scale_factor", "image_size")
SETTINGS = _UNET_SETTINGS + _PROCESS_SETTINGS

# The published network that differs from the defaults: (model_channels, channel_mult, context_dim).
_PUBLISHED: dict[tuple, dict] = {(192, (1, 2, 3, 5), 512): {"num_heads": 1}}  # ImageNet 256, cin256-v2


@dataclass(frozen=True)
class LatentCheckpoint:
    """Weights of a latent diffusion model, and what they belong to.

    unet, first_stage, classes: weights with the networks' own names; classes is empty for an unconditional model.
    weights: "ema" or "model", which of the file's two UNets it is.
    """

    config: LatentDiffusionConfig
    unet: dict[str, Tensor]
    first_stage: dict[str, Tensor]
    classes: dict[str, Tensor]
    weights: str


def is_latent_diffusion(path: str | Path) -> bool:
    """Whether the file at `path` is for `load_checkpoint` here rather than for guided_diffusion's.

    True for every .ckpt file, and for others with a diffusion model inside a larger one. False for what cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".ckpt" or suffix not in SUFFIXES or not path.is_file():
        return suffix == ".ckpt"
    try:
        if suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt", device="cpu") as file:
                return any(name.startswith(UNET) for name in file.keys())
        raw, _ = read_file(path, mapped=True)
    except Exception:  # whoever loads it says what is wrong with it
        return False
    return any(name.startswith(UNET) for name in _innermost(raw))


def load_checkpoint(
    path: str | Path, weights: str = "auto", config: Mapping | str | Path | None = None, **overrides: Any
) -> LatentCheckpoint:
    """Read a checkpoint and work out its configuration.

    Args:
        path: a ``.ckpt``, ``.safetensors``, ``.pt`` or ``.pth`` file with UNet and first stage. Pickled code in it is
            refused, never run.
        weights: "ema" for the averaged UNet, "model" for the last one, "auto" for the averaged one where there is one,
            as the original's sampling does.
        config: CompVis's own config.yaml, as a path or a dict; it wins over what the file says.
        overrides: any of `SETTINGS`, which win over all; None means not given.

    Returns:
        LatentCheckpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read or is no such model, or a wrong setting, saying which and what to do.
    """
    path = Path(path)
    given = {} if config is None else settings_of(config)
    raw, metadata = read_file(path, SUFFIXES)
    try:
        return _split(_innermost(raw), metadata, weights, given, overrides)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def build_networks(
    checkpoint: LatentCheckpoint, device: Any = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[LatentUNet, VQModel, ClassEmbedder | None]:
    """The networks of a checkpoint: the UNet in ``dtype``, the others in float32."""
    config = checkpoint.config
    unet = LatentUNet(config.unet, device="meta", dtype=dtype)
    first_stage = VQModel(config.first_stage, device="meta", dtype=torch.float32)
    classes = None
    if config.num_classes is not None and config.unet.context_dim is not None:
        classes = ClassEmbedder(config.num_classes, config.unet.context_dim, device="meta", dtype=torch.float32)
        _fill(classes, checkpoint.classes, device)
    _fill(unet, checkpoint.unet, device)
    _fill(first_stage, checkpoint.first_stage, device)
    return unet, first_stage, classes


def _fill(network: torch.nn.Module, weights: Mapping[str, Tensor], device: Any) -> None:
    types = {name: p.dtype for name, p in network.named_parameters()}
    network.load_state_dict({k: v.to(device=device, dtype=types[k]) for k, v in weights.items()}, assign=True)


def _innermost(raw: Mapping) -> dict[str, Tensor]:
    inner = raw.get("state_dict")
    return {k: v for k, v in (inner if isinstance(inner, Mapping) else raw).items() if isinstance(v, Tensor)}


def _split(
    tensors: dict[str, Tensor], metadata: Mapping[str, str], weights: str, given: Mapping, overrides: Mapping
) -> LatentCheckpoint:
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {WEIGHTS}, got {weights!r}")
    unknown = sorted(set(overrides) - set(SETTINGS))
    if unknown:
        raise ValueError(f"unknown setting {unknown}; allowed are {SETTINGS}")
    last = _below(tensors, UNET)
    first_stage = {k: v for k, v in _below(tensors, FIRST_STAGE).items() if not k.startswith(("loss.", EMA))}
    classes = _below(tensors, CLASSES)
    _check_kind(tensors, last, first_stage, classes)
    sources = (_read_betas(tensors), metadata_settings(metadata, SETTINGS), given, overrides)
    config = infer_config(last, first_stage, classes, *sources)
    unet, chosen = _choose(tensors, last, weights)
    check_keys(unet, LatentUNet(config.unet, device="meta"))
    check_keys(first_stage, VQModel(config.first_stage, device="meta"))
    return LatentCheckpoint(config, unet, first_stage, classes, chosen)


def infer_config(
    unet: Mapping[str, Tensor], first_stage: Mapping[str, Tensor], classes: Mapping[str, Tensor], *sources: Mapping
) -> LatentDiffusionConfig:
    """Work out a configuration from the names and shapes of weights.

    Attention heads (32 channels each), training size (256) and, where the file has no table of betas, the noise
    schedule cannot be seen. They are taken from ``sources``, the later ones winning, or else from a table of published
    networks and the defaults.

    Args:
        unet, first_stage, classes: weights with the networks' own names; only shapes are looked at.
        sources: mappings of `SETTINGS`; None means not given.
    """
    shape = infer_shape(unet)
    if shape.pop("num_classes") is not None:
        raise ValueError("its UNet has classes of its own, as no published latent diffusion model does")
    key = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    if key in unet:
        shape["context_dim"] = unet[key].shape[1]
        shape["transformer_depth"] = _count(unet, r"middle_block\.1\.transformer_blocks\.(\d+)\.")
    fingerprint = (shape["model_channels"], shape["channel_mult"], shape.get("context_dim"))
    settings = dict(_PUBLISHED.get(fingerprint, {}))
    for source in sources:
        told = {k: v for k, v in source.items() if v is not None}
        if "num_head_channels" in told and "num_heads" not in told:
            settings.pop("num_heads", None)  # the later source decides which of the two counts
        settings |= told
    return LatentDiffusionConfig(
        LatentUNetConfig(**shape, **{k: v for k, v in settings.items() if k in _UNET_SETTINGS}),
        _infer_first_stage(first_stage),
        classes["embedding.weight"].shape[0] if classes else None,
        **{k: v for k, v in settings.items() if k in _PROCESS_SETTINGS},
    )


def _infer_first_stage(sd: Mapping[str, Tensor]) -> FirstStageConfig:
    try:
        channels = sd["encoder.conv_in.weight"].shape[0]
        levels = _count(sd, r"encoder\.down\.(\d+)\.")
        widths = [sd[f"encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(levels)]
        if any(width % channels for width in widths):
            raise ValueError(f"its first stage has levels of {widths} channels, no multiples of the first's {channels}")
        return FirstStageConfig(
            channels=channels,
            channel_mult=tuple(width // channels for width in widths),
            num_res_blocks=_count(sd, r"encoder\.down\.0\.block\.(\d+)\."),
            z_channels=sd["decoder.conv_in.weight"].shape[1],
            embed_dim=sd["post_quant_conv.weight"].shape[1],
            n_embed=sd["quantize.embedding.weight"].shape[0],
            attention_levels=tuple(i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in sd),
            mid_attention="encoder.mid.attn_1.q.weight" in sd,
            image_channels=sd["encoder.conv_in.weight"].shape[1],
        )
    except KeyError as error:
        raise ValueError(f"its first stage is incomplete: {error.args[0]} is missing") from error


def _count(names: Iterable[str], pattern: str) -> int:
    return 1 + max((int(m[1]) for m in (re.match(pattern, name) for name in names) if m), default=-1)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _check_kind(tensors: Mapping, unet: Mapping, first_stage: Mapping, classes: Mapping) -> None:
    if not unet:
        names = ", ".join(sorted(tensors)[:4]) or "nothing"
        raise ValueError(f"not a latent diffusion checkpoint: there is no {UNET}... (found {names}, ...)")
    if not first_stage:
        raise ValueError("it holds the UNet alone; use the complete model.ckpt, with the first stage in it")
    if "quantize.embedding.weight" not in first_stage:
        raise ValueError(
            "its first stage is no VQ autoencoder (Stable Diffusion and other models with a KL autoencoder); use "
            "ComfyUI's Load Checkpoint"
        )
    conditional = any("transformer_blocks" in name for name in unet)
    if (classes.keys() != {"embedding.weight"}) if conditional else bool(classes):
        raise ValueError(
            "it is conditioned on something else than a class (text, layouts, pictures); only unconditional and "
            "class-conditional models can be loaded"
        )


def _choose(tensors: Mapping[str, Tensor], last: dict[str, Tensor], weights: str) -> tuple[dict[str, Tensor], str]:
    """The UNet's weights asked for. LDM's averages have the parameters' names without their dots."""
    average = {name: EMA + ("diffusion_model." + name).replace(".", "") for name in last}
    missing = [key for key in average.values() if key not in tensors]
    if weights == "model" or (weights == "auto" and len(missing) == len(average)):
        return last, "model"
    if missing:
        raise ValueError(
            f"the averaged weights are incomplete: {len(missing)} are missing, the first: {missing[0]}; choose "
            'weights "model"'
        )
    return {name: tensors[key] for name, key in average.items()}, "ema"


def _read_betas(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The noise schedule of the file's own table, and its scale factor, where it has them."""
    settings: dict[str, Any] = {}
    if "scale_factor" in tensors:
        settings["scale_factor"] = float(tensors["scale_factor"])
    betas = tensors.get("betas")
    if betas is None or betas.ndim != 1 or len(betas) < 2:
        return settings
    start, end = (float(f"{float(betas[i]):.6g}") for i in (0, -1))  # as the config had them, without float32's tail
    linear = torch.linspace(start**0.5, end**0.5, len(betas), dtype=torch.float64) ** 2
    if not torch.allclose(betas.double(), linear, rtol=1e-4 if betas.dtype == torch.float32 else 1e-2, atol=1e-9):
        raise ValueError("its table of betas is not linear in their square root, as all published models' are")
    return settings | {"timesteps": len(betas), "linear_start": start, "linear_end": end}
