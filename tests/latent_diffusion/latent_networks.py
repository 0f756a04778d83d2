"""Small latent diffusion networks with weights made from a formula, and checkpoint files of them.

The formula is that of tests/guided_diffusion/networks.py: it depends on nothing but the parameter's name and shape.
"""

import zlib

import numpy as np
import torch

from gradpaint.latent_diffusion import FirstStageConfig, LatentUNet, LatentUNetConfig, VQModel

TIMESTEPS = (3.0, 712.5)
HEADS = {"num_head_channels": 32}

# name -> (configuration, side of the input): as the published ones, but narrow.
UNETS = {
    "celebahq_like": (LatentUNetConfig(32, 3, 2, (1, 2, 3, 4), (2, 4, 8)), 16),
    "cin256_v2_like": (LatentUNetConfig(32, 3, 2, (1, 2, 3, 5), (2, 4, 8), num_heads=1, context_dim=24), 16),
    "cin256_like": (LatentUNetConfig(64, 4, 1, (1, 2), (1, 2), in_channels=4, context_dim=40, transformer_depth=2), 16),
}
FIRST_STAGES = {
    "vq_f4_like": (FirstStageConfig(32, (1, 2, 4), 2, 3, 3, 128), 32),
    "vq_f8_like": (FirstStageConfig(32, (1, 2, 2, 4), 1, 4, 4, 64, (3,)), 32),
    "no_attention": (FirstStageConfig(32, (1, 2), 1, 3, 5, 64, (), False), 16),
}

# The published networks.
PUBLISHED_UNETS = {
    "ldm-celebahq-256": LatentUNetConfig(224, 3, 2, (1, 2, 3, 4), (2, 4, 8)),
    "cin256-v2": LatentUNetConfig(192, 3, 2, (1, 2, 3, 5), (2, 4, 8), num_heads=1, context_dim=512),
    "cin256": LatentUNetConfig(256, 4, 2, (1, 2, 4), (1, 2, 4), in_channels=4, context_dim=512),
}
PUBLISHED_FIRST_STAGES = {
    "vq-f4": FirstStageConfig(128, (1, 2, 4), 2, 3, 3, 8192),
    "vq-f8": FirstStageConfig(128, (1, 2, 2, 4), 2, 4, 4, 16384, (3,)),
}


def uniform(name, shape):
    """Values in [-1, 1), float64, that depend on ``name`` and ``shape`` only."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)


def formula_weights(shapes):
    """``{name: shape}`` -> ``{name: float32 tensor}``."""
    weights = {}
    for name, shape in shapes.items():
        values = uniform(name, tuple(shape))
        if name.endswith("bias"):
            values = 0.1 * values
        elif len(shape) == 1:  # scale of a norm
            values = 1.0 + 0.2 * values
        elif name != "quantize.embedding.weight":
            gain = 2.0 if ".qkv." in name or ".to_q." in name else 1.0  # attention far from an average
            values = gain * np.sqrt(3.0 / np.prod(shape[1:])) * values
        weights[name] = torch.from_numpy(values).float()
    return weights


def formula_input(name, *shape):
    """A float32 tensor of about unit variance."""
    return torch.from_numpy(np.sqrt(3.0) * uniform(name, shape)).float()


def shapes_of(module):
    return {name: tuple(p.shape) for name, p in module.state_dict().items()}


def filled(module):
    module.load_state_dict(formula_weights(shapes_of(module)))
    return module.eval().requires_grad_(False)


def state_dict(unet, first_stage, num_classes=None, ema=False, betas=(0.0015, 0.0195)):
    """What lies in a complete checkpoint, as the original saves it."""
    networks = {"model.diffusion_model.": filled(LatentUNet(unet)), "first_stage_model.": filled(VQModel(first_stage))}
    weights = {prefix + k: v for prefix, net in networks.items() for k, v in net.state_dict().items()}
    if ema:
        for name, value in networks["model.diffusion_model."].state_dict().items():
            weights["model_ema." + ("diffusion_model." + name).replace(".", "")] = value + 0.01
        weights |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(3)}
    if num_classes:
        weights["cond_stage_model.embedding.weight"] = formula_input("classes", num_classes, unet.context_dim)
    if betas:
        schedule = torch.linspace(betas[0] ** 0.5, betas[1] ** 0.5, 1000, dtype=torch.float64) ** 2
        weights |= {"betas": schedule.float(), "alphas_cumprod": (1 - schedule).cumprod(0).float()}
    return weights
