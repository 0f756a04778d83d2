"""Small networks whose weights and inputs are computed by a formula, shared by the tests in this folder.

The formula uses only the raw 64-bit output of NumPy's PCG64, which is the same on every machine and version, seeded by
the CRC-32 of the parameter's name: no value depends on the order in which parameters are made.
"""

import zlib

import numpy as np
import torch

from gradpaint.guided_diffusion import UNetConfig

TIMESTEPS = (3.0, 712.5)
LABELS = (1, 7)

# name -> (configuration, side of the input); every option of the network is in at least one.
NETWORKS = {
    "imagenet64_like": (UNetConfig(64, 6, 1, (1, 2, 3), (2, 4), num_classes=10, use_new_attention_order=True), 16),
    "imagenet256_like": (UNetConfig(32, 6, 2, (1, 1, 2, 2, 4, 4), (8, 16, 32), num_head_channels=32), 64),
    "conv_resample": (UNetConfig(32, 3, 1, (1, 2), (2,), num_heads=4, resblock_updown=False), 16),
    "pool_no_scale_shift": (
        UNetConfig(
            32, 3, 1, (1, 2), (1,), num_heads=2, use_scale_shift_norm=False, resblock_updown=False, conv_resample=False
        ),
        16,
    ),
    "fractional": (UNetConfig(64, 6, 1, (0.5, 1, 1.5), (4,), num_head_channels=32), 16),
}

# The published networks, and one of the 256 x 256 face / place networks trained with that code.
PUBLISHED = {
    "imagenet256_uncond": UNetConfig(256, 6, 2, (1, 1, 2, 2, 4, 4), (8, 16, 32)),
    "imagenet256_cond": UNetConfig(256, 6, 2, (1, 1, 2, 2, 4, 4), (8, 16, 32), num_classes=1000),
    "imagenet64_cond": UNetConfig(192, 6, 3, (1, 2, 3, 4), (2, 4, 8), num_classes=1000, use_new_attention_order=True),
    "ffhq256": UNetConfig(128, 6, 1, (1, 1, 2, 2, 4, 4), (16,)),
}


def uniform(name, shape):
    """Compute values in [-1, 1), float64, that depend on `name` and `shape` only."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)


def formula_weights(shapes):
    """Compute weights for a network: `{name: shape}` -> `{name: float32 tensor}`."""
    weights = {}
    for name, shape in shapes.items():
        values = uniform(name, tuple(shape))
        if name.endswith("bias"):
            values = 0.1 * values
        elif len(shape) == 1:  # scale of a norm
            values = 1.0 + 0.2 * values
        elif name != "label_emb.weight":
            gain = 2.0 if ".qkv." in name else 1.0  # large enough that attention is far from an average
            values = gain * np.sqrt(3.0 / np.prod(shape[1:])) * values
        weights[name] = torch.from_numpy(values).float()
    return weights


def formula_input(size):
    """Compute an input of about unit variance, (2, 3, size, size) float32."""
    return torch.from_numpy(np.sqrt(3.0) * uniform("input", (2, 3, size, size))).float()


def shapes_of(module):
    return {name: tuple(p.shape) for name, p in module.state_dict().items()}
