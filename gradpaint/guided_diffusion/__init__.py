"""The paper's image-space models: openai/guided-diffusion networks and their checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from .checkpoint import Checkpoint, build_unet, infer_config, load_checkpoint
from .config import ModelConfig, UNetConfig
from .diffusion import GuidedDiffusionDenoiser, check_label, learned_variance
from .schedule import noise_schedule, respaced_sigmas, space_timesteps, trained_sigmas
from .unet import UNet

__all__ = [
    "Checkpoint",
    "GuidedDiffusionDenoiser",
    "ModelConfig",
    "UNet",
    "UNetConfig",
    "build_unet",
    "check_label",
    "infer_config",
    "learned_variance",
    "load_checkpoint",
    "load_denoiser",
    "noise_schedule",
    "respaced_sigmas",
    "space_timesteps",
    "trained_sigmas",
]


def load_denoiser(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    label: int | None = None,
    **overrides: object,
) -> GuidedDiffusionDenoiser:
    """Load a checkpoint as a denoiser, `denoiser(x, sigma) -> x0_hat`.

    Args:
        path: a `.safetensors`, `.pt` or `.pth` file in openai/guided-diffusion's format.
        device: where the network runs.
        dtype: in which type it runs.
        label: class of a class-conditional model, 0 to num_classes - 1.
        overrides: settings that the file doesn't show; see `infer_config`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not such a model, or the label or a setting is invalid.
    """
    checkpoint = load_checkpoint(path, **overrides)
    return GuidedDiffusionDenoiser(build_unet(checkpoint, device, dtype), checkpoint.config, label)
