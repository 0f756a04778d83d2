"""The UNet of "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal and Nichol, 2021), for its published weights.

Module names and indices follow the published checkpoints, so that ``load_state_dict`` takes them as they are. The
layers come from an ``operations`` namespace: ``torch.nn``, or any other with the same classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import NORM_GROUPS, UNetConfig


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoids of the timesteps, cosines first: (B,), fractions allowed -> (B, dim) float32."""
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * exponents)[None]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type for what must not be computed in half precision: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _norm(layer: nn.Module, x: Tensor) -> Tensor:
    """Group norm with its statistics in float32, whatever the type of the features."""
    return layer(x.to(_wide(x.dtype))).to(x.dtype)


class _Layers:
    """Builds layers from an ``operations`` namespace; torso convolutions in ``dtype``, all else in float32."""

    def __init__(self, operations, device, dtype):
        self.ops, self.device, self.dtype = operations, device, dtype
        self.wide = None if dtype is None else _wide(dtype)

    def conv(self, cin: int, cout: int, kernel: int, dims: int = 2, stride: int = 1, wide: bool = False) -> nn.Module:
        layer = self.ops.Conv1d if dims == 1 else self.ops.Conv2d
        dtype = self.wide if wide else self.dtype
        return layer(cin, cout, kernel, stride=stride, padding=kernel // 2, device=self.device, dtype=dtype)

    def zero_conv(self, *args, **kwargs) -> nn.Module:
        layer = self.conv(*args, **kwargs)
        # Training starts from the identity; the host's layers are filled from a file and need no start value.
        if self.ops is nn:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return layer

    def linear(self, cin: int, cout: int) -> nn.Module:
        return self.ops.Linear(cin, cout, device=self.device, dtype=self.wide)

    def embedding(self, count: int, dim: int) -> nn.Module:
        return self.ops.Embedding(count, dim, device=self.device, dtype=self.wide)

    def norm(self, channels: int) -> nn.Module:
        return self.ops.GroupNorm(NORM_GROUPS, channels, device=self.device, dtype=self.wide)


class Upsample(nn.Module):
    """Doubles height and width by repetition, then convolves if ``layers`` is given."""

    def __init__(self, channels: int, layers: _Layers | None = None):
        super().__init__()
        if layers is not None:
            self.conv = layers.conv(channels, channels, 3)
        self.learned = layers is not None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x) if self.learned else x


class Downsample(nn.Module):
    """Halves height and width, by a strided convolution if ``layers`` is given, else by averaging."""

    def __init__(self, channels: int, layers: _Layers | None = None):
        super().__init__()
        self.op = nn.AvgPool2d(2) if layers is None else layers.conv(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """Residual block with a timestep embedding that optionally resamples: (B, C, H, W), (B, E) -> (B, C', H', W')."""

    def __init__(self, cin: int, cout: int, emb_dim: int, config: UNetConfig, layers: _Layers, resample=None):
        super().__init__()
        self.scale_shift = config.use_scale_shift_norm
        self.resample = resample(cin) if resample else nn.Identity()
        self.in_layers = nn.Sequential(layers.norm(cin), nn.SiLU(), layers.conv(cin, cout, 3))
        self.emb_layers = nn.Sequential(nn.SiLU(), layers.linear(emb_dim, 2 * cout if self.scale_shift else cout))
        self.out_layers = nn.Sequential(
            layers.norm(cout), nn.SiLU(), nn.Dropout(config.dropout), layers.zero_conv(cout, cout, 3)
        )
        self.skip_connection = nn.Identity() if cin == cout else layers.conv(cin, cout, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm_in, act_in, conv_in = self.in_layers
        norm_out, act_out, dropout, conv_out = self.out_layers
        h = conv_in(self.resample(act_in(_norm(norm_in, x))))
        emb = self.emb_layers(emb).to(h.dtype)[..., None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = _norm(norm_out, h) * (1 + scale) + shift
        else:
            h = _norm(norm_out, h + emb)
        h = conv_out(dropout(act_out(h)))
        return self.skip_connection(self.resample(x)) + h


class AttentionBlock(nn.Module):
    """Residual self-attention over all pixels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, config: UNetConfig, layers: _Layers):
        super().__init__()
        self.heads = config.heads(channels)
        self.new_order = config.use_new_attention_order
        self.norm = layers.norm(channels)
        self.qkv = layers.conv(channels, 3 * channels, 1, dims=1)
        self.proj_out = layers.zero_conv(channels, channels, 1, dims=1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        b, c, t = tokens.shape
        qkv = self.qkv(_norm(self.norm, tokens))
        if self.new_order:  # channels are (q|k|v, head, width)
            q, k, v = qkv.reshape(b, 3, self.heads, -1, t).transpose(-1, -2).unbind(1)
        else:  # channels are (head, q|k|v, width)
            q, k, v = qkv.reshape(b, self.heads, 3, -1, t).transpose(-1, -2).unbind(2)
        attended = F.scaled_dot_product_attention(q, k, v)
        h = self.proj_out(attended.transpose(-1, -2).reshape(b, c, t))
        return (tokens + h).reshape(x.shape)


class Stage(nn.Sequential):
    """A sequence whose residual blocks also get the timestep embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNet(nn.Module):
    """Predicts the noise (and, with learned sigma, the variance) of a unit-variance noised image.

    Convolutions of the torso are held in ``dtype``; norms, embeddings and the last convolution in at least float32,
    as in the original's half-precision mode. The torso computes in the type of ``x``.

    Args:
        config: shape of the network.
        operations: namespace with Conv1d, Conv2d, Linear, GroupNorm and Embedding; with ``torch.nn`` the last
            convolution of every block starts at zero, for training.
        device, dtype: of the parameters.
    """

    def __init__(self, config: UNetConfig, operations=nn, device=None, dtype: torch.dtype | None = None):
        super().__init__()
        self.config = config
        self.dtype = dtype or torch.get_default_dtype()
        layers = _Layers(operations, device, dtype)
        emb_dim = 4 * config.model_channels
        self.time_embed = nn.Sequential(
            layers.linear(config.model_channels, emb_dim), nn.SiLU(), layers.linear(emb_dim, emb_dim)
        )
        if config.num_classes is not None:
            self.label_emb = layers.embedding(config.num_classes, emb_dim)

        def res(cin, cout, resample=None):
            return ResBlock(cin, cout, emb_dim, config, layers, resample)

        def attend(channels, level):
            return [AttentionBlock(channels, config, layers)] if 2**level in config.attention_ds else []

        def resampler(channels, kind):
            if config.resblock_updown:
                return res(channels, channels, kind)
            return kind(channels, layers if config.conv_resample else None)

        widths = config.level_channels
        last = len(widths) - 1
        ch = widths[0]
        skips = [ch]
        self.input_blocks = nn.ModuleList([Stage(layers.conv(config.in_channels, ch, 3))])
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(Stage(res(ch, width), *attend(width, level)))
                ch = width
                skips.append(ch)
            if level < last:
                self.input_blocks.append(Stage(resampler(ch, Downsample)))
                skips.append(ch)

        self.middle_block = Stage(res(ch, ch), AttentionBlock(ch, config, layers), res(ch, ch))

        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for i in range(config.num_res_blocks + 1):
                stage = [res(ch + skips.pop(), widths[level]), *attend(widths[level], level)]
                ch = widths[level]
                if level and i == config.num_res_blocks:
                    stage.append(resampler(ch, Upsample))
                self.output_blocks.append(Stage(*stage))

        self.out = nn.Sequential(layers.norm(ch), nn.SiLU(), layers.zero_conv(ch, config.out_channels, 3, wide=True))

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None, **ignored) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, C, H, W) noised images, unit variance.
            timesteps: (B,) timesteps as in training; values between two whole ones are fine.
            y: (B,) class labels, for a class-conditional network only.
            ignored: other arguments a host may pass.

        Returns:
            (B, out_channels, H, W), at least float32.
        """
        wide = _wide(x.dtype)
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(wide))
        if self.config.num_classes is not None:
            if y is None:
                raise ValueError(f"this network is class-conditional ({self.config.num_classes} classes): y is needed")
            emb = emb + self.label_emb(y).to(wide)
        h = x
        skips = []
        for stage in self.input_blocks:
            h = stage(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h.to(wide))
