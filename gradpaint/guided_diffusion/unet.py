"""The UNet of "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal and Nichol, 2021), for its published weights.

Modules are named and numbered as in the published checkpoints, so `load_state_dict` takes those unchanged. The layers
come from an `operations` namespace: `torch.nn`, or any other with the same classes.
"""

from __future__ import annotations

import math
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import UNetConfig
from .layers import Layers, Operations, wide_type


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Embed timesteps, (B,), whole or not, as sinusoids, cosines first, (B, dim) float32."""
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * exponents)[None]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


def normalized(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a norm in at least float32 and return the result in the type of `x`."""
    return layer(x.to(wide_type(x.dtype))).to(x.dtype)


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then convolves if `layers` is given."""

    def __init__(self, channels: int, layers: Layers | None = None):
        super().__init__()
        if layers is not None:
            self.conv = layers.conv(channels, channels, 3)
        self.learned = layers is not None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x) if self.learned else x


class Downsample(nn.Module):
    """Halves height and width, by a strided convolution if `layers` is given, by averaging if not."""

    def __init__(self, channels: int, layers: Layers | None = None):
        super().__init__()
        self.op = nn.AvgPool2d(2) if layers is None else layers.conv(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """Residual block with a timestep embedding, optionally resampling: (B, C, H, W), (B, E) -> (B, C', H', W')."""

    def __init__(
        self,
        cin: int,
        cout: int,
        emb_dim: int,
        config: UNetConfig,
        layers: Layers,
        resample: Callable[[int], nn.Module] | None = None,
    ):
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
        h = conv_in(self.resample(act_in(normalized(norm_in, x))))
        emb = self.emb_layers(emb).to(h.dtype)[..., None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = normalized(norm_out, h) * (1 + scale) + shift
        else:
            h = normalized(norm_out, h + emb)
        h = conv_out(dropout(act_out(h)))
        return self.skip_connection(self.resample(x)) + h


class AttentionBlock(nn.Module):
    """Residual self-attention among all pixels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, config: UNetConfig, layers: Layers):
        super().__init__()
        self.heads = config.heads(channels)
        self.new_order = config.use_new_attention_order
        self.norm = layers.norm(channels)
        self.qkv = layers.conv(channels, 3 * channels, 1, dims=1)
        self.proj_out = layers.zero_conv(channels, channels, 1, dims=1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        b, c, t = tokens.shape
        qkv = self.qkv(normalized(self.norm, tokens))
        if self.new_order:  # channels are (q|k|v, head, width)
            q, k, v = qkv.reshape(b, 3, self.heads, -1, t).transpose(-1, -2).unbind(1)
        else:  # channels are (head, q|k|v, width)
            q, k, v = qkv.reshape(b, self.heads, 3, -1, t).transpose(-1, -2).unbind(2)
        attended = F.scaled_dot_product_attention(q, k, v)
        h = self.proj_out(attended.transpose(-1, -2).reshape(b, c, t))
        return (tokens + h).reshape(x.shape)


class ContextBlock(nn.Module):
    """Base class of blocks that also take a conditioning: (B, C, H, W), (B, tokens, width) -> (B, C, H, W)."""


class Stage(nn.Sequential):
    """A sequence of layers; residual blocks get the timestep embedding too, and context blocks the conditioning."""

    # Sequential's forward takes one argument, but the host's memory ladder looks for Sequentials.
    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            else:
                x = layer(x, context) if isinstance(layer, ContextBlock) else layer(x)
        return x


class _Blocks:
    """Builds the blocks of a UNet, from the encoder's to the decoder's."""

    def __init__(self, config: UNetConfig, layers: Layers, attention: Callable[[int, Layers], nn.Module]):
        self.config, self.layers, self.attention = config, layers, attention
        self.emb_dim = 4 * config.model_channels

    def encoder(self) -> tuple[nn.ModuleList, list[int]]:
        """Return the encoder's stages and the width of each one's output."""
        config = self.config
        ch = config.level_channels[0]
        skips = [ch]
        stages = nn.ModuleList([Stage(self.layers.conv(config.in_channels, ch, 3))])
        for level, width in enumerate(config.level_channels):
            for _ in range(config.num_res_blocks):
                stages.append(Stage(self._res(ch, width), *self._attention(width, level)))
                ch = width
                skips.append(ch)
            if level < len(config.level_channels) - 1:
                stages.append(Stage(self._resampler(ch, Downsample)))
                skips.append(ch)
        return stages, skips

    def middle(self) -> Stage:
        ch = self.config.level_channels[-1]
        return Stage(self._res(ch, ch), self.attention(ch, self.layers), self._res(ch, ch))

    def decoder(self, skips: list[int]) -> nn.ModuleList:
        """Return the decoder's stages; `skips` are the widths from the encoder, each taken by one stage."""
        widths = self.config.level_channels
        ch = widths[-1]
        stages = nn.ModuleList()
        for level in range(len(widths) - 1, -1, -1):
            for i in range(self.config.num_res_blocks + 1):
                stage = [self._res(ch + skips.pop(), widths[level]), *self._attention(widths[level], level)]
                ch = widths[level]
                if level and i == self.config.num_res_blocks:
                    stage.append(self._resampler(ch, Upsample))
                stages.append(Stage(*stage))
        return stages

    def _res(self, cin: int, cout: int, resample: Callable[[int], nn.Module] | None = None) -> nn.Module:
        return ResBlock(cin, cout, self.emb_dim, self.config, self.layers, resample)

    def _attention(self, channels: int, level: int) -> list[nn.Module]:
        has_attention = 2**level in self.config.attention_ds
        return [self.attention(channels, self.layers)] if has_attention else []

    def _resampler(self, channels: int, kind: type[Upsample] | type[Downsample]) -> nn.Module:
        if self.config.resblock_updown:
            return self._res(channels, channels, kind)
        return kind(channels, self.layers if self.config.conv_resample else None)


class UNet(nn.Module):
    """Predicts the noise (and, with learned sigma, the variance) of a unit-variance noisy image.

    As in the original's half-precision mode, the torso's convolutions are in `dtype`, and norms, embeddings and the
    last convolution in at least float32. The torso computes in the type of `x`.

    Args:
        config: shape of the network.
        operations: where the layers come from; with `torch.nn`, the last convolution of every block starts at zero, for
            training.
        device: of the parameters.
        dtype: of the torso's convolutions.
    """

    def __init__(
        self,
        config: UNetConfig,
        operations: Operations = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.config = config
        self.dtype = dtype or torch.get_default_dtype()
        layers = Layers(operations, device, dtype)
        blocks = _Blocks(config, layers, self.attention)
        self.time_embed = nn.Sequential(
            layers.linear(config.model_channels, blocks.emb_dim),
            nn.SiLU(),
            layers.linear(blocks.emb_dim, blocks.emb_dim),
        )
        if config.num_classes is not None:
            self.label_emb = layers.embedding(config.num_classes, blocks.emb_dim)
        self.input_blocks, skips = blocks.encoder()
        self.middle_block = blocks.middle()
        self.output_blocks = blocks.decoder(skips)
        cout, cin = config.out_channels, config.level_channels[0]
        self.out = nn.Sequential(layers.norm(cin), nn.SiLU(), layers.zero_conv(cin, cout, 3, wide=True))

    def attention(self, channels: int, layers: Layers) -> nn.Module:
        """Make the attention layer of a level; networks with another kind override this."""
        return AttentionBlock(channels, self.config, layers)

    def forward(
        self, x: Tensor, timesteps: Tensor, y: Tensor | None = None, context: Tensor | None = None, **ignored: object
    ) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, C, H, W) noisy images, unit variance.
            timesteps: (B,) timesteps as in training; fractions are allowed.
            y: (B,) class labels, for a class-conditional network only.
            context: (B, tokens, width) conditioning, for a network with `ContextBlock`s only.
            ignored: other arguments that a host passes.

        Returns:
            (B, out_channels, H, W), at least float32.

        Raises:
            ValueError: a class-conditional network without labels.
        """
        wide = wide_type(x.dtype)
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(wide))
        if self.config.num_classes is not None:
            if y is None:
                raise ValueError(f"this network is class-conditional ({self.config.num_classes} classes): y is needed")
            emb = emb + self.label_emb(y).to(wide)
        h = x
        skips = []
        for stage in self.input_blocks:
            h = stage(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, context)
        return self.out(h.to(wide))
