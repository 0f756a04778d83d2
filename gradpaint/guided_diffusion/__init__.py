"""The paper's image-space models: networks of openai/guided-diffusion and their checkpoints."""

from __future__ import annotations

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
    path, device="cpu", dtype: torch.dtype = torch.float32, label: int | None = None, **overrides
) -> GuidedDiffusionDenoiser:
    """Load a checkpoint as a denoiser, ``denoiser(x, sigma) -> x0_hat``.

    Args:
        path: ``.safetensors``, ``.pt`` or ``.pth`` file in openai/guided-diffusion's format.
        device, dtype: where and in which type the network runs.
        label: class, for a class-conditional model (0..num_classes-1).
        overrides: what the file cannot tell, see `infer_config`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not such a model, or a wrong label or setting.
    """
    checkpoint = load_checkpoint(path, **overrides)
    return GuidedDiffusionDenoiser(build_unet(checkpoint, device, dtype), checkpoint.config, label)
