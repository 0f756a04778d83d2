"""Decoders for the alignment loss on latents, made of the host's own parts.

The units are the sampler's: `rgb` and `tiny` take latents as the host's previews do, `vae` as the host's decoding does,
after `process_out`. Answers are (B, 3, ..., H, W), [-1, 1] up to overshoot, and can be differentiated within a guided
evaluation (see `autograd`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import comfy.taesd.taesd
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ....gradpaint.method.decoders import Decoder, LinearRGB
from ....gradpaint.method.settings import AlignmentSettings
from ..autograd.inference_tensors import OrdinaryArguments
from .space import is_pixel_space

log = logging.getLogger(__name__)

FOLDER = "vae_approx"
SOURCE = "https://github.com/madebyollin/taesd"


@dataclasses.dataclass(frozen=True)
class HostAlignment(AlignmentSettings):
    """The settings together with the host's VAE object that `space` "vae" decodes with."""

    vae: Any = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self):
        super().__post_init__()
        _vae_of(self)

    @property
    def patchers(self) -> list:
        """The host's ModelPatchers that have to be loaded along with the model."""
        return [self.vae.patcher] if self.space == "vae" and self.lambda_al > 0 else []


def alignment_on(model, alignment: AlignmentSettings, through_model: bool = True) -> AlignmentSettings:
    """The settings with lambda_al 0 where there is nothing to look at. model: the host's BaseModel; through_model:
    whether gradients are taken, without which nothing is decoded."""
    here = is_pixel_space(model) or alignment.space == "latent"
    if alignment.lambda_al == 0 or (here and alignment.space != "off"):
        return alignment
    if alignment.space not in ("auto", "off") and through_model:
        return alignment
    if alignment.space == "auto":
        log.info(
            "GradPaint: %s denoises latents; the alignment loss is off there unless a space is chosen",
            type(model).__name__,
        )
    return dataclasses.replace(alignment, lambda_al=0.0)


def decoder_for(model, alignment: AlignmentSettings, latent: Tensor) -> Decoder | None:
    """What the alignment loss sees latents of this model through; None where it looks at the state's own space.

    latent: one as the samplers see it. Raises ValueError where the space asked for is not to be had.
    """
    if alignment.lambda_al == 0 or is_pixel_space(model):
        return None
    name, space = type(model.latent_format).__name__, alignment.space
    if latent.ndim not in (4, 5):
        raise ValueError(
            f"space is {space!r}, but latents of shape {tuple(latent.shape)} ({name}: packed parts, sound "
            "or geometry) are no images: set space to off"
        )
    if space == "latent":
        return None
    return {"rgb": _rgb, "tiny": _tiny, "vae": _vae}[space](model.latent_format, alignment, latent)


def _rgb(latent_format, alignment: AlignmentSettings, latent: Tensor) -> Decoder:
    factors = latent_format.latent_rgb_factors
    if factors is None:
        raise ValueError(
            f"space is 'rgb', but ComfyUI has no projection to colours for {type(latent_format).__name__} "
            "latents: set space to tiny, vae or off"
        )
    bias = latent_format.latent_rgb_factors_bias
    reshape = getattr(latent_format, "latent_rgb_factors_reshape", None)
    with torch.inference_mode(False):
        bias = None if bias is None else torch.tensor(bias, device=latent.device)
        return LinearRGB(torch.tensor(factors, device=latent.device), bias, reshape)


def _tiny(latent_format, alignment: AlignmentSettings, latent: Tensor) -> Decoder:
    name = latent_format.taesd_decoder_name
    if name is None or latent.ndim != 4:
        raise ValueError(
            f"space is 'tiny', but there is no tiny decoder of single images for "
            f"{type(latent_format).__name__} latents of shape {tuple(latent.shape)}: set space to rgb, "
            "vae or off"
        )
    file = next((file for file in folder_paths.get_filename_list(FOLDER) if file.startswith(name)), None)
    if file is None:
        raise ValueError(
            f"space is 'tiny', but there is no {name} in ComfyUI's models/{FOLDER}: put {name}.pth or "
            f"{name}.safetensors there (from {SOURCE}), or set space to rgb, vae or off"
        )
    with torch.inference_mode(False):
        tiny = comfy.taesd.taesd.TAESD(
            None, folder_paths.get_full_path_or_raise(FOLDER, file), latent_channels=latent_format.latent_channels
        )
        return tiny.to(latent.device).eval().requires_grad_(False).decode


def _vae(latent_format, alignment: AlignmentSettings, latent: Tensor) -> Decoder:
    vae, frames = _vae_of(alignment), latent.shape[2] if latent.ndim == 5 else 1
    if frames > 1:
        raise ValueError(
            f"space is 'vae', but a video (latent of shape {tuple(latent.shape)}) can't be decoded at "
            "every guided step: set space to rgb or off"
        )
    channels = getattr(vae, "latent_channels", latent.shape[1])
    if channels != latent.shape[1]:
        raise ValueError(
            f"space is 'vae', but the VAE connected decodes latents of {channels} channels and this "
            f"model's have {latent.shape[1]}: connect the model's own VAE"
        )
    still = latent.ndim == 5 and vae.latent_dim == 2  # a VAE of images with a model whose latents have a time axis
    scale, shift = _output_range(vae.process_output)

    def decode(z: Tensor) -> Tensor:
        with OrdinaryArguments():  # its tables come from the host's inference mode
            z = latent_format.process_out(z)
        z = z[:, :, 0] if still else z
        image = vae.first_stage_model.decode(z.to(vae.device, vae.vae_dtype))[:, :3].to(latent.device)
        return (image.unsqueeze(2) if still else image) * scale + shift

    return decode


def _vae_of(alignment: AlignmentSettings):
    vae = getattr(alignment, "vae", None)
    if alignment.space == "vae" and vae is None:
        raise ValueError("space is 'vae', but no VAE is connected: connect the model's own to GradPaint Alignment Loss")
    return vae


def _output_range(process_output: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """(scale, shift) from a VAE's raw output to [-1, 1]. The host's own function clamps to [0, 1], in place."""
    low, high = process_output(torch.tensor([0.25, 0.5])).tolist()
    slope = (high - low) / 0.25
    return 2 * slope, 2 * (low - 0.25 * slope) - 1
