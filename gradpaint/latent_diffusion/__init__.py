"""Latent diffusion models of CompVis/latent-diffusion with a VQ first stage: CelebA-HQ, FFHQ, ImageNet at 256 x 256."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .checkpoint import LatentCheckpoint, build_networks, is_latent_diffusion, load_checkpoint
from .config import FirstStageConfig, LatentDiffusionConfig, LatentUNetConfig
from .denoiser import LatentDiffusionDenoiser, check_label, trained_sigmas
from .first_stage import VQModel
from .inpaint import inpaint_image
from .unet import ClassEmbedder, LatentUNet

__all__ = [
    "ClassEmbedder",
    "FirstStageConfig",
    "LatentCheckpoint",
    "LatentDiffusionConfig",
    "LatentDiffusionDenoiser",
    "LatentUNet",
    "LatentUNetConfig",
    "VQModel",
    "build_networks",
    "check_label",
    "inpaint_image",
    "is_latent_diffusion",
    "load_checkpoint",
    "load_latent_diffusion",
    "trained_sigmas",
]


def load_latent_diffusion(
    path: str | Path,
    device: Any = "cpu",
    dtype: torch.dtype = torch.float32,
    label: int | None = None,
    *,
    weights: str = "auto",
    config: Mapping | str | Path | None = None,
    **overrides: Any,
) -> LatentDiffusionDenoiser:
    """Load a checkpoint as a denoiser of latents with ``encode`` and ``decode``.

    Args:
        path: a complete checkpoint (UNet and first stage), ``.ckpt``, ``.safetensors``, ``.pt`` or ``.pth``.
        device: where the networks run.
        dtype: type of the UNet; the first stage runs in float32.
        label: class, for a class-conditional model.
        weights, config, overrides: see `load_checkpoint`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not such a model, or a wrong label or setting.
    """
    checkpoint = load_checkpoint(path, weights, config, **overrides)
    unet, first_stage, classes = build_networks(checkpoint, device, dtype)
    return LatentDiffusionDenoiser(unet, first_stage, checkpoint.config, classes, label)
