"""Full-size UNets with random, properly scaled weights, built by the host's own config classes in inference mode.

The settings are what the host's detection finds in the published checkpoints of SD 1.5 and SDXL.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_UNET = dict(
    image_size=32,
    in_channels=4,
    out_channels=4,
    model_channels=320,
    use_spatial_transformer=True,
    legacy=False,
    use_temporal_attention=False,
    use_temporal_resblock=False,
)
SETTINGS = {
    "sd15": (
        "SD15",
        dict(
            _UNET,
            num_res_blocks=[2, 2, 2, 2],
            channel_mult=[1, 2, 4, 4],
            context_dim=768,
            transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
            transformer_depth_middle=1,
            num_heads=8,
            transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
            adm_in_channels=None,
            use_linear_in_transformer=False,
        ),
    ),
    "sdxl": (
        "SDXL",
        dict(
            _UNET,
            num_res_blocks=[2, 2, 2],
            channel_mult=[1, 2, 4],
            context_dim=2048,
            transformer_depth=[0, 0, 2, 2, 10, 10],
            transformer_depth_middle=10,
            num_head_channels=64,
            transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
            num_classes="sequential",
            adm_in_channels=2816,
            use_linear_in_transformer=True,
        ),
    ),
}
TEXT = {"sd15": (77, 768, 768), "sdxl": (77, 2048, 1280)}  # tokens, width, pooled width
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TINY = {"sd15-tiny": "sd15", "sdxl-tiny": "sdxl", "flux-tiny": "flux"}  # of tests/host/support/zoo.py
NAMES = (*SETTINGS, *TINY)


@dataclass
class Model:
    """A MODEL and what it takes to sample it: `latent` (1, C, H, W), conditionings in the host's format."""

    name: str
    patcher: object
    parameters: int
    latent: torch.Tensor
    positive: list
    negative: list


def build(name: str, size: int, dtype: str = "fp32", device: str = "cpu") -> Model:
    """The model for square images of `size` pixels; its weights wait in host memory, where `device` is another."""
    import zoo

    with torch.inference_mode():
        if name in TINY:
            patcher = getattr(zoo, TINY[name])(dtype=DTYPES[dtype])
            positive, negative = (zoo.conditioning(TINY[name], seed) for seed in (1, 2))
        else:
            patcher = _full(name, DTYPES[dtype], device)
            positive, negative = (_conditioning(name, seed) for seed in (1, 2))
        if device != "cpu":
            patcher.load_device = torch.device(device)
    model = patcher.model
    generator = torch.Generator().manual_seed(0)
    channels = model.latent_format.latent_channels
    latent = torch.randn((1, channels, size // 8, size // 8), generator=generator) / model.latent_format.scale_factor
    parameters = sum(p.numel() for p in model.diffusion_model.parameters())
    return Model(name, patcher, parameters, latent, positive, negative)


def _full(name: str, dtype: torch.dtype, device: str):
    import comfy.model_patcher
    import comfy.supported_models

    kind, settings = SETTINGS[name]
    config = getattr(comfy.supported_models, kind)(dict(settings))
    config.set_inference_dtype(dtype, None)
    model = config.get_model({})
    fill(model.diffusion_model)
    model.eval()
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device(device), offload_device=cpu)


def fill(module: torch.nn.Module, seed: int = 0) -> None:
    """N(0, 1/fan_in) weights, scales around 1, small biases: activations of ordinary size, no denormal numbers.

    The numbers are one block of random values used over and over, which takes seconds where drawing takes minutes.
    """
    block = torch.randn(1 << 22, generator=torch.Generator().manual_seed(seed))
    at = 0
    for name, p in module.named_parameters():
        values, scale = p.view(-1), (p[0].numel() ** -0.5 if p.ndim > 1 else 0.1)
        for start in range(0, p.numel(), 1 << 20):
            part = values[start : start + (1 << 20)]
            at = (at + 7919) % ((1 << 22) - (1 << 20))  # a prime: no two weights begin at the same place
            part.copy_(block[at : at + len(part)]).mul_(scale)
        if p.ndim == 1 and name.endswith("weight"):
            p.add_(1)


def _conditioning(name: str, seed: int) -> list:
    tokens, width, pooled = TEXT[name]
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            torch.randn(1, tokens, width, generator=generator),
            {"pooled_output": torch.randn(1, pooled, generator=generator)},
        ]
    ]
