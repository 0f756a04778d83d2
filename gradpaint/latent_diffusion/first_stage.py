"""The first stage of latent diffusion: a VQ autoencoder (Esser et al., 2021) that makes latents of images.

Names follow the published checkpoints. The layers come from an ``operations`` namespace, as the UNet's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..guided_diffusion.layers import Layers, Operations, wide_type
from ..guided_diffusion.unet import Upsample, normalized
from .config import FirstStageConfig

NORM_EPS = 1e-6
CELLS_AT_ONCE = 4096  # whose distances to all codes are held at once: 128 MB with 8192 codes


class VQModel(nn.Module):
    """Encoder, quantizer and decoder. Diffusion works on what comes before the quantizer.

    Args:
        config: shape of the network.
        operations: namespace with Conv2d, GroupNorm and Embedding.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        config: FirstStageConfig,
        operations: Operations = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.config = config
        layers = Layers(operations, device, dtype)
        self.encoder = Encoder(config, layers)
        self.decoder = Decoder(config, layers)
        self.quantize = Quantizer(config, layers)
        self.quant_conv = layers.conv(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = layers.conv(config.embed_dim, config.z_channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latent (B, C, h, w), not quantized."""
        return self.quant_conv(self.encoder(image))

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w), quantized here -> image (B, 3, H, W) in [-1, 1] up to overshoot."""
        return self.decoder(self.post_quant_conv(self.quantize(latent)))


class Quantizer(nn.Module):
    """Takes each cell of a latent to the nearest code; the gradient passes straight through (van den Oord, 2017)."""

    def __init__(self, config: FirstStageConfig, layers: Layers):
        super().__init__()
        self.count = config.n_embed
        self.embedding = layers.embedding(config.n_embed, config.embed_dim)

    def forward(self, latent: Tensor) -> Tensor:
        cells = latent.movedim(1, -1).to(wide_type(latent.dtype))
        with torch.no_grad():
            everything = torch.arange(self.count, device=latent.device)
            codes = self.embedding(everything).to(cells.dtype)  # by its forward: a host may keep the weight elsewhere
            parts = cells.reshape(-1, cells.shape[-1]).split(CELLS_AT_ONCE)
            nearest = torch.cat([_distances(part, codes).argmin(1) for part in parts])
            step = codes[nearest].reshape(cells.shape) - cells
        return (cells + step).movedim(-1, 1).to(latent.dtype)


def _distances(cells: Tensor, codes: Tensor) -> Tensor:
    """Squared distances (cells, codes), in the original's order of operations so that ties fall the same way."""
    return (cells**2).sum(1, keepdim=True) + (codes**2).sum(1) - 2 * (cells @ codes.T)


class Encoder(nn.Module):
    """(B, 3, H, W) -> (B, z_channels, h, w)."""

    def __init__(self, config: FirstStageConfig, layers: Layers):
        super().__init__()
        widths = config.level_channels
        self.conv_in = layers.conv(config.image_channels, config.channels, 3)
        self.down = nn.ModuleList()
        ch = config.channels
        for level, width in enumerate(widths):
            stage = Level(ch, width, config.num_res_blocks, level in config.attention_levels, layers)
            if level < len(widths) - 1:
                stage.downsample = PaddedDownsample(width, layers)
            self.down.append(stage)
            ch = width
        self.mid = Middle(ch, config.mid_attention, layers)
        self.norm_out = layers.norm(ch, NORM_EPS)
        self.conv_out = layers.conv(ch, config.z_channels, 3)

    def forward(self, image: Tensor) -> Tensor:
        h = self.conv_in(image)
        for stage in self.down:
            h = stage(h)
        h = self.mid(h)
        return self.conv_out(F.silu(normalized(self.norm_out, h)))


class Decoder(nn.Module):
    """(B, z_channels, h, w) -> (B, 3, H, W)."""

    def __init__(self, config: FirstStageConfig, layers: Layers):
        super().__init__()
        widths = config.level_channels
        ch = widths[-1]
        self.conv_in = layers.conv(config.z_channels, ch, 3)
        self.mid = Middle(ch, config.mid_attention, layers)
        stages = []
        for level in reversed(range(len(widths))):
            width = widths[level]
            stage = Level(ch, width, config.num_res_blocks + 1, level in config.attention_levels, layers)
            if level:
                stage.upsample = Upsample(width, layers)
            stages.append(stage)
            ch = width
        self.up = nn.ModuleList(reversed(stages))  # numbered by level, but run from the last
        self.norm_out = layers.norm(ch, NORM_EPS)
        self.conv_out = layers.conv(ch, config.image_channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for stage in reversed(self.up):
            h = stage(h)
        return self.conv_out(F.silu(normalized(self.norm_out, h)))


class Level(nn.Module):
    """Residual blocks of one size, each with attention after it where the level attends, then the resampling."""

    def __init__(self, cin: int, cout: int, blocks: int, attention: bool, layers: Layers):
        super().__init__()
        self.block = nn.ModuleList([ResnetBlock(cin if i == 0 else cout, cout, layers) for i in range(blocks)])
        self.attn = nn.ModuleList([AttentionBlock(cout, layers) for _ in range(blocks if attention else 0)])
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        for resample in (self.downsample, self.upsample):
            x = x if resample is None else resample(x)
        return x


class Middle(nn.Module):
    """Two residual blocks, and attention between them unless the network has none."""

    def __init__(self, channels: int, attention: bool, layers: Layers):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, layers)
        self.attn_1 = AttentionBlock(channels, layers) if attention else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels, layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class ResnetBlock(nn.Module):
    """Residual block without a timestep: (B, C, H, W) -> (B, C', H, W)."""

    def __init__(self, cin: int, cout: int, layers: Layers):
        super().__init__()
        self.norm1 = layers.norm(cin, NORM_EPS)
        self.conv1 = layers.conv(cin, cout, 3)
        self.norm2 = layers.norm(cout, NORM_EPS)
        self.conv2 = layers.conv(cout, cout, 3)
        if cin != cout:
            self.nin_shortcut = layers.conv(cin, cout, 1)
        self.same = cin == cout

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(normalized(self.norm1, x)))
        h = self.conv2(F.silu(normalized(self.norm2, h)))
        return (x if self.same else self.nin_shortcut(x)) + h


class AttentionBlock(nn.Module):
    """Residual self-attention of one head over all cells: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, layers: Layers):
        super().__init__()
        self.norm = layers.norm(channels, NORM_EPS)
        self.q, self.k, self.v, self.proj_out = (layers.conv(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = normalized(self.norm, x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.proj_out(attended.reshape(x.shape))


class PaddedDownsample(nn.Module):
    """Halves the size by a strided convolution; the padding is at the right and bottom only."""

    def __init__(self, channels: int, layers: Layers):
        super().__init__()
        self.conv = layers.conv(channels, channels, 3, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))
