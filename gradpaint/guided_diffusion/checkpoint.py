"""Reads guided-diffusion checkpoints from many training codes and infers the network's shape from the weights."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import ModelConfig, UNetConfig
from .pickles import stand_ins
from .unet import UNet

SUFFIXES = (".safetensors", ".pt", ".pth")
METADATA_KEY = "gradpaint.config"

# What the weights don't show: head width and attention order (UNetConfig), and the diffusion process.
_UNET_SETTINGS = ("num_head_channels", "num_heads", "use_new_attention_order", "dropout")
_PROCESS_SETTINGS = tuple(f.name for f in fields(ModelConfig) if f.name != "unet")
SETTINGS = _UNET_SETTINGS + _PROCESS_SETTINGS

# Published networks that differ from the defaults, keyed by what identifies them:
# (model_channels, num_res_blocks, channel_mult, num_classes, out_channels).
_PUBLISHED: dict[tuple[object, ...], dict[str, object]] = {
    (192, 3, (1, 2, 3, 4), 1000, 6): {"noise_schedule": "cosine", "use_new_attention_order": True},  # ImageNet 64
    (256, 2, (1, 1, 2, 3, 4), 1000, 6): {"num_heads": 4},  # ImageNet 128
}

# Keys under which training codes save their weights, averaged weights first.
_NESTS = ("ema", "ema_state_dict", "model_ema", "params_ema", "state_dict", "model_state_dict", "model", "params")
_PREFIX = re.compile(r"(?:(?:module|model|_orig_mod|ema|ema_model|model_ema|unet)\.)*")


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights as stored in a file, its configuration and the file's metadata."""

    config: ModelConfig
    state_dict: dict[str, Tensor]
    metadata: dict[str, str]


class LatentDiffusionFile(ValueError):
    """The file holds a latent diffusion model; the message says what loads it. names: of its weights."""

    def __init__(self, names: Iterable[str]):
        if any(name.startswith("first_stage_model.quantize.") for name in names):
            text = "use the node Load Latent Diffusion Model, `gradpaint inpaint`, or gradpaint.latent_diffusion"
        else:
            text = (
                "use ComfyUI's Load Checkpoint, or, if it is a CompVis model with a VQ first stage, the complete "
                "checkpoint with the node Load Latent Diffusion Model"
            )
        super().__init__(f"a latent diffusion checkpoint; {text}")


def load_checkpoint(path: str | Path, **overrides: object) -> Checkpoint:
    """Read a checkpoint and infer its configuration.

    Args:
        path: a `.safetensors`, `.pt` or `.pth` file. A file with pickled code is refused; the code never runs.
        overrides: see `infer_config`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file can't be read or is not a guided-diffusion network.
    """
    path = Path(path)
    raw, metadata = read_file(path)
    try:
        state_dict = unwrap_state_dict(raw)
        config = infer_config(state_dict, metadata, **overrides)
        check_keys(state_dict, UNet(config.unet, device="meta"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Checkpoint(config, state_dict, metadata)


def unwrap_state_dict(raw: Mapping[str, object]) -> dict[str, Tensor]:
    """Extract the network's weights, under their published names, from what a training code saved.

    Raises:
        ValueError: no guided-diffusion network in it.
    """
    tensors = {k: v for k, v in raw.items() if isinstance(k, str) and isinstance(v, Tensor)}
    ends = [k[: -len("time_embed.0.weight")] for k in tensors if k.endswith("time_embed.0.weight")]
    if any(end.endswith("diffusion_model.") for end in ends) or any("transformer_blocks" in k for k in tensors):
        raise LatentDiffusionFile(tensors)
    prefixes = sorted((end for end in ends if _PREFIX.fullmatch(end)), key=lambda p: ("ema" not in p, len(p)))
    if prefixes:
        return {k[len(prefixes[0]) :]: v for k, v in tensors.items() if k.startswith(prefixes[0])}
    for name in _NESTS:
        nested = raw.get(name)
        if isinstance(nested, Mapping):
            try:
                return unwrap_state_dict(nested)
            except LatentDiffusionFile:
                raise
            except ValueError:
                continue  # some codes save the state of the optimizer or of the averaging under such a name
    names = ", ".join(sorted(map(str, raw))[:4]) or "nothing"
    raise ValueError(f"not a guided-diffusion checkpoint: there is no time_embed.0.weight (found {names}, ...)")


def infer_config(
    state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, **overrides: object
) -> ModelConfig:
    """Infer a network's configuration from the names and shapes of its weights.

    The weights don't show the head width, the attention order or anything about the diffusion process (`SETTINGS`).
    These come from `overrides`, else from the JSON object `metadata["gradpaint.config"]`, else from a table of
    published networks, else from the defaults of `UNetConfig` and `ModelConfig` (image size: by the number of levels).

    Args:
        state_dict: weights under their published names; only their shapes are used.
        metadata: string metadata of a safetensors file.
        overrides: any of `SETTINGS`; None is the same as leaving one out.

    Raises:
        ValueError: the weights are not such a network's, or a setting is unknown or out of range.
    """
    unknown = set(overrides) - set(SETTINGS)
    if unknown:
        raise ValueError(f"unknown setting {sorted(unknown)}; allowed are {SETTINGS}")
    shape = infer_shape(state_dict)
    fingerprint = tuple(
        shape[k] for k in ("model_channels", "num_res_blocks", "channel_mult", "num_classes", "out_channels")
    )
    settings: dict[str, Any] = {"image_size": 8 * 2 ** (len(shape["channel_mult"]) - 1)} | _PUBLISHED.get(
        fingerprint, {}
    )
    for source in (metadata_settings(metadata), {k: v for k, v in overrides.items() if v is not None}):
        if "num_head_channels" in source and "num_heads" not in source:
            settings.pop("num_heads", None)  # whichever of the two came last counts
        settings |= source
    unet = UNetConfig(**shape, **{k: v for k, v in settings.items() if k in _UNET_SETTINGS})
    return ModelConfig(unet, **{k: v for k, v in settings.items() if k in _PROCESS_SETTINGS})


def build_unet(checkpoint: Checkpoint, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> UNet:
    """Build a checkpoint's network with its weights; see `UNet` for what `dtype` applies to."""
    unet = UNet(checkpoint.config.unet, device="meta", dtype=dtype)
    dtypes = {name: p.dtype for name, p in unet.named_parameters()}
    weights = {k: v.to(device=device, dtype=dtypes[k]) for k, v in checkpoint.state_dict.items()}
    unet.load_state_dict(weights, assign=True)
    return unet


def read_file(
    path: Path, suffixes: tuple[str, ...] = SUFFIXES, mapped: bool = False
) -> tuple[Mapping[str, object], dict[str, str]]:
    """Return a file's contents and its metadata. A file with pickled code is refused; the code never runs.

    Args:
        path: of the file.
        suffixes: what its name may end in.
        mapped: leave a pickled file's tensors on the disk until they are used, to look at their names only.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: a checkpoint must be one of {', '.join(suffixes)}, got {path.suffix!r}")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    try:
        with stand_ins():
            raw = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if re.search(r"unsupported (global|class)", str(error), re.IGNORECASE):
            raise ValueError(
                f"{path}: it holds pickled code, which could do anything to this machine, so it was not loaded. If you "
                "trust its origin, save its plain state dict (torch.save of tensors, or .safetensors) and load that"
            ) from error
        raise _unreadable(path, error) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and others for broken files
        raise _unreadable(path, error) from error
    if not isinstance(raw, Mapping):
        raise ValueError(f"{path}: it holds a {type(raw).__name__}, not a state dict")
    return raw, {}


def _read_safetensors(path: Path) -> tuple[Mapping[str, object], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    first = str(error).strip().split("\n")[0] or type(error).__name__
    return ValueError(f"{path}: the file cannot be read: it is damaged, truncated or in another format ({first})")


def metadata_settings(metadata: Mapping[str, str] | None, allowed: tuple[str, ...] = SETTINGS) -> dict[str, object]:
    """Return the settings in a safetensors file's metadata that are among `allowed`."""
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"metadata {METADATA_KEY!r} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"metadata {METADATA_KEY!r} must be a JSON object, got {text[:80]!r}")
    return {k: v for k, v in values.items() if k in allowed and v is not None}


def infer_shape(sd: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of UNetConfig that the weights show."""
    model_channels, in_channels = _shape(sd, "time_embed.0.weight")[1], _shape(sd, "input_blocks.0.0.weight")[1]
    outputs = {k for k in sd if k.startswith("output_blocks.")}
    if not outputs or "out.2.weight" not in sd:
        raise ValueError("it has no output_blocks: a classifier (encoder only), not a model that makes images")
    out_channels = _shape(sd, "out.2.weight")[0]
    if in_channels == 6 and out_channels in (3, 6):
        raise ValueError(
            "it takes 6 input channels: a super-resolution model, which needs a small image besides the noisy one; "
            "use a model that makes images from noise"
        )
    if out_channels not in (in_channels, 2 * in_channels):
        raise ValueError(f"{in_channels} input but {out_channels} output channels; expected as many, or twice as many")

    blocks = {int(m[1]) for m in (re.match(r"input_blocks\.(\d+)\.", k) for k in sd) if m}
    count = max(blocks) + 1
    strided = sum(bool(re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", k)) for k in sd)
    pooled = count - len(blocks)  # layers without weights are gaps in the numbering
    updown = sum(bool(re.fullmatch(r"output_blocks\.\d+\.[12]\.in_layers\.0\.weight", k)) for k in outputs)
    levels = 1 + max(strided, pooled, updown)
    if count % levels or count // levels < 2:
        raise ValueError(f"{count} input blocks do not make {levels} equal levels: not a guided-diffusion network")
    per_level = count // levels

    mult, attention = [], []
    for level in range(levels):
        block = f"input_blocks.{1 + level * per_level}"
        width = _shape(sd, f"{block}.0.out_layers.3.weight")[0]
        mult.append(width // model_channels if width % model_channels == 0 else width / model_channels)
        if f"{block}.1.qkv.weight" in sd or f"{block}.1.proj_in.weight" in sd:
            attention.append(2**level)
    first = "input_blocks.1.0"
    emb_out, width = (_shape(sd, f"{first}.{k}.weight")[0] for k in ("emb_layers.1", "out_layers.3"))
    return {
        "model_channels": model_channels,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "num_res_blocks": per_level - 1,
        "channel_mult": tuple(mult),
        "attention_ds": tuple(attention),
        "num_classes": _shape(sd, "label_emb.weight")[0] if "label_emb.weight" in sd else None,
        "use_scale_shift_norm": emb_out == 2 * width,
        "resblock_updown": not (strided or pooled),
        "conv_resample": not pooled,
    }


def _shape(sd: Mapping[str, Tensor], name: str) -> torch.Size:
    if name not in sd or sd[name].ndim < 2:
        raise ValueError(f"not a guided-diffusion checkpoint: {name} is missing or not a matrix")
    return sd[name].shape


def check_keys(state_dict: Mapping[str, Tensor], network: nn.Module) -> None:
    """Raise ValueError unless the weights have the names and shapes of the network's own."""
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - state_dict.keys()), sorted(state_dict.keys() - expected.keys())
    wrong = [k for k in expected.keys() & state_dict.keys() if expected[k].shape != state_dict[k].shape]
    for problem, names in (("missing", missing), ("unexpected", extra), ("of another shape", sorted(wrong))):
        if names:
            raise ValueError(f"{len(names)} weights are {problem}, the first: {', '.join(names[:3])}")
