"""Decoders for the loss at the border on latents, built from the host's own classes.

They take latents in the sampler's units: `rgb` and `tiny` as the host's previews do; `vae` applies `process_out` first,
as the host's decoding does. They return (B, 3, ..., H, W) in [-1, 1], up to overshoot, and can be differentiated within
a guided evaluation (see `autograd`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.taesd.taesd
import folder_paths
import torch
from torch import Tensor

from ....gradpaint.method.decoders import Decoder, LinearRGB
from ....gradpaint.method.settings import AlignmentSettings
from ..autograd.inference_tensors import OrdinaryArguments
from .space import is_pixel_space

if TYPE_CHECKING:
    from comfy.latent_formats import LatentFormat
    from comfy.model_base import BaseModel
    from comfy.sd import VAE

log = logging.getLogger(__name__)

FOLDER = "vae_approx"
SOURCE = "https://github.com/madebyollin/taesd"


@dataclasses.dataclass(frozen=True)
class HostAlignment(AlignmentSettings):
    """The settings with the host's VAE, which the space "vae" decodes with."""

    vae: Any = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space == "vae":
            _vae_of(self)

    @property
    def patchers(self) -> list:
        """The host's ModelPatchers that have to be loaded together with the model."""
        return [self.vae.patcher] if self.space == "vae" and self.lambda_al > 0 else []


def alignment_on(model: BaseModel, alignment: AlignmentSettings, through_model: bool = True) -> AlignmentSettings:
    """Return the settings for this model: with lambda_al 0 where the loss at the border has nothing to look at.

    Args:
        model: the model to be sampled.
        alignment: as the user set it.
        through_model: whether gradients go through the model; otherwise nothing is decoded.
    """
    needs_no_decoder = is_pixel_space(model) or alignment.space == "latent"
    if alignment.lambda_al == 0 or (needs_no_decoder and alignment.space != "off"):
        return alignment
    if alignment.space not in ("auto", "off") and through_model:
        return alignment
    if alignment.space == "auto":
        log.info(
            "GradPaint: %s denoises latents, so the loss at the border is off; choose a space to turn it on",
            type(model).__name__,
        )
    return dataclasses.replace(alignment, lambda_al=0.0)


def decoder_for(model: BaseModel, alignment: AlignmentSettings, latent: Tensor) -> Decoder | None:
    """Return the decoder that the loss at the border views this model's latents through; None if it needs none.

    Args:
        model: the model to be sampled.
        alignment: names the space.
        latent: as the samplers see it, (B, C, h, w) or (B, C, T, h, w).

    Raises:
        ValueError: if the space is not available for this model.
    """
    if alignment.lambda_al == 0 or is_pixel_space(model):
        return None
    name, space = type(model.latent_format).__name__, alignment.space
    if latent.ndim not in (4, 5):
        raise ValueError(
            f"space is {space!r}, but {name} latents of shape {tuple(latent.shape)} (video and audio packed together, "
            "audio, or geometry) are not images: set space to off"
        )
    if space == "latent":
        return None
    make_decoder = {"rgb": _rgb_projection, "tiny": _tiny_decoder, "vae": _vae_decoder}[space]
    return make_decoder(model.latent_format, alignment, latent)


def _rgb_projection(latent_format: LatentFormat, alignment: AlignmentSettings, latent: Tensor) -> Decoder:
    factors = latent_format.latent_rgb_factors
    if factors is None:
        raise ValueError(
            f"space is 'rgb', but ComfyUI has no projection to RGB for {type(latent_format).__name__} "
            "latents: set space to tiny, vae or off"
        )
    bias = latent_format.latent_rgb_factors_bias
    reshape = getattr(latent_format, "latent_rgb_factors_reshape", None)
    with torch.inference_mode(False):
        bias = None if bias is None else torch.tensor(bias, device=latent.device)
        return LinearRGB(torch.tensor(factors, device=latent.device), bias, reshape)


def _tiny_decoder(latent_format: LatentFormat, alignment: AlignmentSettings, latent: Tensor) -> Decoder:
    name = latent_format.taesd_decoder_name
    if name is None or latent.ndim != 4:
        raise ValueError(
            f"space is 'tiny', but there is no tiny image decoder for {type(latent_format).__name__} latents of shape "
            f"{tuple(latent.shape)}: set space to rgb, vae or off"
        )
    file = next((file for file in folder_paths.get_filename_list(FOLDER) if file.startswith(name)), None)
    if file is None:
        raise ValueError(
            f"space is 'tiny', but there is no {name} in ComfyUI's folder models/{FOLDER}: download {name}.pth or "
            f"{name}.safetensors from {SOURCE} into it, or set space to rgb, vae or off"
        )
    with torch.inference_mode(False):
        tiny = comfy.taesd.taesd.TAESD(
            None, folder_paths.get_full_path_or_raise(FOLDER, file), latent_channels=latent_format.latent_channels
        )
        return tiny.to(latent.device).eval().requires_grad_(False).decode


def _vae_decoder(latent_format: LatentFormat, alignment: AlignmentSettings, latent: Tensor) -> Decoder:
    vae, frames = _vae_of(alignment), latent.shape[2] if latent.ndim == 5 else 1
    if frames > 1:
        raise ValueError(
            f"space is 'vae', but decoding a video (latent of shape {tuple(latent.shape)}) at every guided step is not "
            "supported: set space to rgb or off"
        )
    channels = getattr(vae, "latent_channels", latent.shape[1])
    if channels != latent.shape[1]:
        raise ValueError(
            f"space is 'vae', but the connected VAE decodes latents of {channels} channels and this model's have "
            f"{latent.shape[1]}: connect the model's own VAE"
        )
    still = latent.ndim == 5 and vae.latent_dim == 2  # an image VAE with a model whose latents have a time axis
    scale, shift = _output_range(vae.process_output)

    def decode(z: Tensor) -> Tensor:
        with OrdinaryArguments():  # its tables were created in the host's inference mode
            z = latent_format.process_out(z)
        z = z[:, :, 0] if still else z
        image = vae.first_stage_model.decode(z.to(vae.device, vae.vae_dtype))[:, :3].to(latent.device)
        return (image.unsqueeze(2) if still else image) * scale + shift

    return decode


def _vae_of(alignment: AlignmentSettings) -> VAE:
    vae = getattr(alignment, "vae", None)
    if vae is None:
        raise ValueError(
            "space is 'vae', but no VAE is connected: connect the model's own VAE to GradPaint Alignment Loss"
        )
    return vae


def _output_range(process_output: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """(scale, shift) that bring a VAE's raw output to [-1, 1]; the host's own function clamps to [0, 1], in place."""
    low, high = process_output(torch.tensor([0.25, 0.5])).tolist()
    slope = (high - low) / 0.25
    return 2 * slope, 2 * (low - 0.25 * slope) - 1
