"""Tiny random models of the families people load, built by the host's own classes, as the host loads them.

Everything happens inside inference mode, so weights are inference tensors like those of a real checkpoint.
"""

from __future__ import annotations

import torch

CONTEXT = 32  # width and (with 7 tokens) shape of the stand-in text conditioning


def _randomise(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(module.named_parameters()):
        fan_in = p[0].numel() if p.ndim > 1 else 1
        values = torch.randn(p.shape, generator=generator) * (fan_in**-0.5 if p.ndim > 1 else 0.1)
        if p.ndim == 1 and "norm" in name.lower() and name.endswith(("weight", "scale")):
            values = values + 1
        p.copy_(values)


def _patcher(model, seed: int):
    import comfy.model_patcher

    _randomise(model.diffusion_model, seed)
    cpu = torch.device("cpu")
    model.eval()
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def _unet_config(**changes) -> dict:
    config = dict(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=64,
        num_res_blocks=[1, 1],
        channel_mult=[1, 2],
        transformer_depth=[1, 1],
        transformer_depth_output=[1, 1, 1, 1],
        transformer_depth_middle=1,
        context_dim=CONTEXT,
        use_spatial_transformer=True,
        use_linear_in_transformer=False,
        adm_in_channels=None,
        use_temporal_attention=False,
        legacy=False,
    )
    return {**config, **changes}


def sd15(seed: int = 0, dtype=torch.float32, compute_dtype=None, operations=None, **changes):
    import comfy.supported_models

    with torch.inference_mode():
        config = comfy.supported_models.SD15(_unet_config(**changes))
        config.custom_operations = operations
        config.set_inference_dtype(dtype, compute_dtype)
        return _patcher(config.get_model({}), seed)


def sdxl(seed: int = 0, dtype=torch.float32):
    import comfy.supported_models

    with torch.inference_mode():
        config = comfy.supported_models.SDXL(
            _unet_config(use_linear_in_transformer=True, num_classes="sequential", adm_in_channels=2816)
        )
        config.set_inference_dtype(dtype, None)
        return _patcher(config.get_model({}), seed)


def flux(seed: int = 0, dtype=torch.float32, config: str = "Flux", in_channels: int = 16):
    import comfy.supported_models

    with torch.inference_mode():
        config = getattr(comfy.supported_models, config)(
            dict(
                image_model="flux",
                in_channels=in_channels,
                out_channels=16,
                patch_size=2,
                vec_in_dim=768,
                context_in_dim=4096,
                hidden_size=128,
                mlp_ratio=4.0,
                num_heads=2,
                depth=2,
                depth_single_blocks=2,
                axes_dim=[16, 24, 24],
                theta=10000,
                qkv_bias=True,
                guidance_embed=True,
                txt_ids_dims=[],
            )
        )
        config.set_inference_dtype(dtype, None)
        return _patcher(config.get_model({}), seed)


def guided_diffusion(pack, folder, seed: int = 0):
    """A tiny image-space model through the pack's own loader."""
    import importlib

    from safetensors.torch import save_file

    library = importlib.import_module(f"{pack.__name__}.gradpaint.guided_diffusion")
    loader = importlib.import_module(f"{pack.__name__}.nodes.host.guided_diffusion")
    config = library.UNetConfig(32, 6, 1, (1, 2), (2,), num_head_channels=32)
    unet = library.UNet(config)
    with torch.no_grad():
        _randomise(unet, seed)
    path = folder / f"tiny{seed}.safetensors"
    save_file({name: p.contiguous() for name, p in unet.state_dict().items()}, path)
    with torch.inference_mode():
        return loader.load_model(str(path), {"num_head_channels": 32, "image_size": 16})


FAMILIES = ("sd15", "sdxl", "flux", "guided_diffusion")
SHAPES = {"sd15": (1, 4, 16, 16), "sdxl": (1, 4, 16, 16), "flux": (1, 16, 16, 16), "guided_diffusion": (1, 3, 16, 16)}


def build(family: str, pack, folder, seed: int = 0):
    """A MODEL of the family."""
    if family == "guided_diffusion":
        return guided_diffusion(pack, folder, seed)
    return {"sd15": sd15, "sdxl": sdxl, "flux": flux}[family](seed)


def conditioning(family: str, seed: int = 1):
    """The host's conditioning format for a family: random text embedding and pooled vector, in inference mode."""
    width = {"flux": 4096}.get(family, CONTEXT)
    pooled = {"sdxl": 1280, "flux": 768}.get(family, CONTEXT)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        return [
            [
                torch.randn(1, 7, width, generator=generator),
                {"pooled_output": torch.randn(1, pooled, generator=generator)},
            ]
        ]
