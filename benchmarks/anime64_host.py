"""The anime64 model of this project's internal measurement set as a MODEL of the host, and its development images."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, autocast

CONDITIONING = [[torch.zeros(1, 1, 1), {}]]  # unconditional: any tensor does, at cfg 1
TOP = 286  # noise levels up to sigma 13.7: above, an eps model's error is multiplied beyond use (the model's README)


def load_model(assets: Path, bfloat16: bool = True):
    """A ModelPatcher. bfloat16: the network runs under autocast, several times faster on a CPU, and answers in
    float32. The host has to be imported before."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.ops
    import comfy.supported_models_base

    class PixelSpace(comfy.latent_formats.LatentFormat):
        latent_channels, scale_factor = 3, 1.0

    class Config(comfy.supported_models_base.BASE):
        latent_format, sampling_settings, memory_usage_factor = PixelSpace, {"timesteps": 300}, 1.0

    anime64 = _module(assets)
    model = comfy.model_base.BaseModel(Config({"disable_unet_model_creation": True}), comfy.model_base.ModelType.EPS)
    model.diffusion_model = anime64.load(operations=comfy.ops.disable_weight_init)
    if bfloat16:
        quick_on_cpu(model.diffusion_model)
    model.model_sampling.set_sigmas(anime64.sigmas()[:TOP].float())
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, cpu, cpu)


def _module(assets: Path):
    sys.path.insert(0, str(assets / "anime64"))
    try:
        import anime64
    finally:
        sys.path.pop(0)
    return anime64


def quick_on_cpu(network: torch.nn.Module) -> None:
    """From now on its forward pass runs under autocast with channels last, and its answer is in float32."""
    network.__class__ = _in_bfloat16(type(network))
    network.to(memory_format=torch.channels_last)


def _in_bfloat16(network: type) -> type:
    class InBfloat16(network):
        def forward(self, *args, **kwargs) -> Tensor:
            with autocast("cpu", torch.bfloat16):
                return super().forward(*args, **kwargs).float()

    return InBfloat16


def image_files(assets: Path, n: int) -> list[Path]:
    """The first n of the 32 development images."""
    files = sorted((assets / "anime64" / "dev").glob("*.png"))
    if not 2 <= n <= len(files):  # one has no standard error
        raise SystemExit(f"--n is {n}, but must be between 2 and {len(files)}")
    return files[:n]
