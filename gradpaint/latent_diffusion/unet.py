"""The UNet of latent diffusion (CompVis/latent-diffusion): guided-diffusion's, with transformers where conditional.

Names and indices follow the published checkpoints, as in `guided_diffusion.unet`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..guided_diffusion.layers import Layers, Operations
from ..guided_diffusion.unet import ContextBlock, UNet, normalized
from .config import LatentUNetConfig

NORM_EPS = 1e-6  # of the group norms that LDM's authors added; the UNet's own have torch's default


class LatentUNet(UNet):
    """Predicts the noise of a unit-variance noised latent; arguments as `UNet`'s."""

    config: LatentUNetConfig

    def attention(self, channels: int, layers: Layers) -> nn.Module:
        if self.config.context_dim is None:
            return super().attention(channels, layers)
        return SpatialTransformer(channels, self.config, layers)

    def forward(
        self, x: Tensor, timesteps: Tensor, y: Tensor | None = None, context: Tensor | None = None, **ignored: Any
    ) -> Tensor:
        width = self.config.context_dim
        if width is None:
            return super().forward(x, timesteps)
        if context is None or context.ndim != 3 or context.shape[-1] != width:
            got = None if context is None else tuple(context.shape)
            raise ValueError(f"context is {got}, but this network needs a tensor (batch, tokens, {width})")
        return super().forward(x, timesteps, context=context)


class SpatialTransformer(ContextBlock):
    """Residual transformer blocks over all cells: (B, C, H, W), (B, T, E) -> (B, C, H, W)."""

    def __init__(self, channels: int, config: LatentUNetConfig, layers: Layers):
        super().__init__()
        self.norm = layers.norm(channels, NORM_EPS)
        self.proj_in = layers.conv(channels, channels, 1)
        blocks = [TransformerBlock(channels, config, layers) for _ in range(config.transformer_depth)]
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = layers.zero_conv(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.proj_in(normalized(self.norm, x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context.to(tokens.dtype))
        return x + self.proj_out(tokens.transpose(1, 2).reshape(b, c, h, w))


class TransformerBlock(nn.Module):
    """Self-attention, attention to the conditioning and a gated layer, each added to the tokens (B, N, C)."""

    def __init__(self, width: int, config: LatentUNetConfig, layers: Layers):
        super().__init__()
        heads, context_dim = config.heads(width), config.context_dim or width
        self.attn1 = CrossAttention(width, width, heads, config.dropout, layers)
        self.ff = FeedForward(width, config.dropout, layers)
        self.attn2 = CrossAttention(width, context_dim, heads, config.dropout, layers)
        self.norm1, self.norm2, self.norm3 = (layers.layer_norm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        own = normalized(self.norm1, x)
        x = self.attn1(own, own) + x
        x = self.attn2(normalized(self.norm2, x), context) + x
        return self.ff(normalized(self.norm3, x)) + x


class CrossAttention(nn.Module):
    """Attention of tokens (B, N, C) to a context (B, T, E) -> (B, N, C)."""

    def __init__(self, width: int, context_dim: int, heads: int, dropout: float, layers: Layers):
        super().__init__()
        self.heads = heads
        self.to_q = layers.linear(width, width, bias=False, wide=False)
        self.to_k = layers.linear(context_dim, width, bias=False, wide=False)
        self.to_v = layers.linear(context_dim, width, bias=False, wide=False)
        self.to_out = nn.Sequential(layers.linear(width, width, wide=False), nn.Dropout(dropout))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Gated two-layer network of each token: (B, N, C) -> (B, N, C)."""

    def __init__(self, width: int, dropout: float, layers: Layers):
        super().__init__()
        inner = 4 * width
        self.net = nn.Sequential(
            GEGLU(width, inner, layers), nn.Dropout(dropout), layers.linear(inner, width, wide=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class GEGLU(nn.Module):
    """Linear layer whose second half gates the first (Shazeer, 2020)."""

    def __init__(self, width: int, inner: int, layers: Layers):
        super().__init__()
        self.proj = layers.linear(width, 2 * inner, wide=False)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class ClassEmbedder(nn.Module):
    """The conditioning of a class: labels (B,) -> (B, 1, width)."""

    def __init__(
        self,
        num_classes: int,
        width: int,
        operations: Operations = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.embedding = Layers(operations, device, dtype).embedding(num_classes, width)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding(labels[:, None])
