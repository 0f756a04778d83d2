"""Configuration of a guided-diffusion network (Dhariwal and Nichol, 2021) and of its diffusion process."""

from __future__ import annotations

from dataclasses import dataclass

NORM_GROUPS = 32  # of every group norm in the published networks
NOISE_SCHEDULES = ("linear", "cosine")


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the UNet.

    Args:
        model_channels: width of the first level, before `channel_mult`.
        out_channels: 3 for the predicted noise only, 6 if the variance is learned as well.
        num_res_blocks: residual blocks per level in the encoder; the decoder has one more.
        channel_mult: width of each level in units of `model_channels`; fractions are allowed.
        attention_ds: downsampling factors (1, 2, 4, ...) whose levels have attention; the middle block always does.
        in_channels: channels of the image.
        num_classes: number of classes, or None for an unconditional network.
        num_head_channels: width of an attention head, used if `num_heads` is None.
        num_heads: number of heads in every attention layer, or None.
        use_scale_shift_norm: the timestep embedding scales and shifts the features (FiLM) instead of only shifting.
        resblock_updown: resample inside residual blocks instead of in separate layers.
        conv_resample: separate resampling layers have a convolution; ignored with `resblock_updown`.
        use_new_attention_order: split q, k and v before the heads, as the published ImageNet 64 network does.
        dropout: dropout rate in residual blocks, for training.

    Raises:
        ValueError: a field is out of range.
    """

    model_channels: int
    out_channels: int
    num_res_blocks: int
    channel_mult: tuple[float, ...]
    attention_ds: tuple[int, ...]
    in_channels: int = 3
    num_classes: int | None = None
    num_head_channels: int = 64
    num_heads: int | None = None
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    conv_resample: bool = True
    use_new_attention_order: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_mult", tuple(self.channel_mult))
        object.__setattr__(self, "attention_ds", tuple(sorted(set(self.attention_ds))))
        for name in ("model_channels", "out_channels", "num_res_blocks", "in_channels"):
            _check_positive_int(name, getattr(self, name))
        for name in ("num_classes", "num_heads"):
            if getattr(self, name) is not None:
                _check_positive_int(name, getattr(self, name))
        if self.num_heads is None:
            _check_positive_int("num_head_channels", self.num_head_channels)
        for name in ("use_scale_shift_norm", "resblock_updown", "conv_resample", "use_new_attention_order"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.channel_mult or any(m <= 0 for m in self.channel_mult):
            raise ValueError(f"channel_mult must hold at least one positive number, got {self.channel_mult}")
        for channels in self.level_channels:
            if channels < NORM_GROUPS or channels % NORM_GROUPS:
                raise ValueError(
                    f"model_channels {self.model_channels} times channel_mult {self.channel_mult} gives {channels} "
                    f"channels; every level needs a multiple of {NORM_GROUPS} (group norm)"
                )
        allowed = tuple(2**level for level in range(len(self.channel_mult)))
        if not set(self.attention_ds) <= set(allowed):
            raise ValueError(f"attention_ds must be among the downsampling factors {allowed}, got {self.attention_ds}")
        for channels in self.attention_channels:
            self.heads(channels)

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Width of each level."""
        # The small term makes up for rounding: a fraction such as 1/3 would otherwise come out one channel short.
        return tuple(int(m * self.model_channels + 1e-6) for m in self.channel_mult)

    @property
    def attention_channels(self) -> tuple[int, ...]:
        """Width of each level that has attention, and of the middle block."""
        levels = [ch for i, ch in enumerate(self.level_channels) if 2**i in self.attention_ds]
        return (*levels, self.level_channels[-1])

    @property
    def size_multiple(self) -> int:
        """What the height and width of an image must be multiples of."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def learned_sigma(self) -> bool:
        """Whether the second half of the output channels is the learned variance."""
        return self.out_channels == 2 * self.in_channels

    def heads(self, channels: int) -> int:
        """Return the number of heads of an attention layer that is `channels` wide."""
        if self.num_heads is not None:
            if channels % self.num_heads:
                raise ValueError(
                    f"num_heads {self.num_heads} does not divide the {channels} channels of an attention layer; "
                    "set num_heads or num_head_channels to what the network was trained with"
                )
            return self.num_heads
        if channels % self.num_head_channels:
            raise ValueError(
                f"num_head_channels {self.num_head_channels} does not divide the {channels} channels of an attention "
                "layer; set num_head_channels (or num_heads) to what the network was trained with"
            )
        return channels // self.num_head_channels


@dataclass(frozen=True)
class ModelConfig:
    """A network and the diffusion process it was trained on.

    Args:
        unet: shape of the network.
        noise_schedule: `"linear"` or `"cosine"`.
        diffusion_steps: number of trained timesteps.
        image_size: side in pixels of the training images.
        sigma_max: noise levels above this are left out of the table of levels. The last few of the cosine schedule go
            up to sigma 20,000, and a sampler that starts there multiplies the network's error by that; the default
            keeps the whole linear schedule (up to sigma 157).

    Raises:
        ValueError: a field is out of range.
    """

    unet: UNetConfig
    noise_schedule: str = "linear"
    diffusion_steps: int = 1000
    image_size: int = 256
    sigma_max: float = 160.0

    def __post_init__(self) -> None:
        if self.noise_schedule not in NOISE_SCHEDULES:
            raise ValueError(f"noise_schedule must be one of {NOISE_SCHEDULES}, got {self.noise_schedule!r}")
        _check_positive_int("diffusion_steps", self.diffusion_steps)
        if self.diffusion_steps < 2:
            raise ValueError(f"diffusion_steps must be at least 2, got {self.diffusion_steps}")
        _check_positive_int("image_size", self.image_size)
        if not isinstance(self.sigma_max, (int, float)) or not self.sigma_max >= 1.0:  # read from JSON
            raise ValueError(f"sigma_max must be at least 1, got {self.sigma_max!r}")


def _check_positive_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
