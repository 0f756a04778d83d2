"""Configuration of a latent diffusion model (Rombach et al., 2022): UNet, first stage, classes and noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

from ..guided_diffusion.config import NORM_GROUPS, UNetConfig

NULL_LABEL_OF = {1001: 1000}  # cin256-v2: ImageNet's classes, and one more that stands for none


@dataclass(frozen=True)
class LatentUNetConfig(UNetConfig):
    """Shape of the UNet: guided-diffusion's network with other settings, and with cross-attention where conditional.

    Args:
        context_dim: width of the conditioning's tokens; None for an unconditional network, which has plain attention.
        transformer_depth: transformer blocks of each attention layer; unused where ``context_dim`` is None.

    The other fields, and what is raised, are `UNetConfig`'s.
    """

    num_head_channels: int = 32
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    context_dim: int | None = None
    transformer_depth: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_dim is not None:
            check_positive_int("context_dim", self.context_dim)
        check_positive_int("transformer_depth", self.transformer_depth)


@dataclass(frozen=True)
class FirstStageConfig:
    """Shape of the VQ autoencoder that makes latents of images.

    Args:
        channels: width of the first level, before ``channel_mult``.
        channel_mult: width of each level in units of ``channels``; each level but the first halves the size.
        num_res_blocks: residual blocks of each level of the encoder (one more in the decoder).
        z_channels: channels between encoder and quantizer.
        embed_dim: channels of the latent, and of a code.
        n_embed: number of codes.
        attention_levels: levels with attention, 0 the first.
        mid_attention: whether the middle blocks have attention.
        image_channels: channels of the image.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    z_channels: int
    embed_dim: int
    n_embed: int
    attention_levels: tuple[int, ...] = ()
    mid_attention: bool = True
    image_channels: int = 3

    def __post_init__(self) -> None:
        for name in ("channels", "num_res_blocks", "z_channels", "embed_dim", "n_embed", "image_channels"):
            check_positive_int(name, getattr(self, name))
        if not self.channel_mult:
            raise ValueError(f"channel_mult must hold at least one number, got {self.channel_mult}")
        for channels in self.level_channels:
            if channels < NORM_GROUPS or channels % NORM_GROUPS:
                raise ValueError(
                    f"channels {self.channels} times channel_mult {self.channel_mult} gives {channels} channels; "
                    f"every level needs a multiple of {NORM_GROUPS} (group norm)"
                )

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Width of each level."""
        return tuple(self.channels * m for m in self.channel_mult)

    @property
    def downscale(self) -> int:
        """Side of a latent cell in pixels: 4 for VQ-f4."""
        return 2 ** (len(self.channel_mult) - 1)


@dataclass(frozen=True)
class LatentDiffusionConfig:
    """A latent diffusion model and the process it was trained on.

    Args:
        unet: shape of the UNet.
        first_stage: shape of the autoencoder.
        num_classes: rows of the class embedder, or None for an unconditional model.
        timesteps: number of trained timesteps.
        linear_start, linear_end: the first and the last beta of the schedule, which is linear in sqrt(beta).
        scale_factor: what latents are multiplied by before diffusion.
        image_size: side in pixels of the images it was trained on.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    unet: LatentUNetConfig
    first_stage: FirstStageConfig
    num_classes: int | None = None
    timesteps: int = 1000
    linear_start: float = 0.0015
    linear_end: float = 0.0195
    scale_factor: float = 1.0
    image_size: int = 256

    def __post_init__(self) -> None:
        if self.num_classes is not None:
            check_positive_int("num_classes", self.num_classes)
        if (self.num_classes is None) != (self.unet.context_dim is None):
            raise ValueError(
                f"num_classes is {self.num_classes} and the UNet's context_dim {self.unet.context_dim}, "
                "but either both or neither must be given"
            )
        check_positive_int("timesteps", self.timesteps)
        check_positive_int("image_size", self.image_size)
        for name in ("linear_start", "linear_end"):
            value = getattr(self, name)
            if isinstance(value, (str, bool)) or not 0.0 < value < 1.0:
                raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
        if isinstance(self.scale_factor, (str, bool)) or not 0.0 < self.scale_factor < float("inf"):
            raise ValueError(f"scale_factor must be a positive number, got {self.scale_factor!r}")
        if self.timesteps < 2 or self.linear_start > self.linear_end:
            raise ValueError(
                f"timesteps is {self.timesteps} and the betas run from {self.linear_start} to {self.linear_end}, "
                "but there must be at least 2 steps and the betas must not fall"
            )
        if self.unet.in_channels != self.first_stage.embed_dim:
            raise ValueError(
                f"the UNet takes latents of {self.unet.in_channels} channels, but the first stage makes "
                f"{self.first_stage.embed_dim}"
            )

    @property
    def null_label(self) -> int | None:
        """The class that stands for none, where the model was trained with one."""
        return None if self.num_classes is None else NULL_LABEL_OF.get(self.num_classes)

    @property
    def size_multiple(self) -> int:
        """Height and width of an image must be multiples of this, in pixels."""
        return self.first_stage.downscale * self.unet.size_multiple


def check_positive_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
