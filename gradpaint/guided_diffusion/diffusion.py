"""Noise schedules of guided-diffusion models, and their network as a denoiser of variance-exploding states."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import NOISE_SCHEDULES, ModelConfig
from .unet import UNet


def noise_schedule(name: str, steps: int = 1000) -> Tensor:
    """The variances beta_1..beta_T of the forward process, (T,) float64.

    ``"linear"`` (Ho et al., 2020) runs from 1e-4 to 0.02 at 1000 steps and scales with 1000 / steps; ``"cosine"``
    (Nichol and Dhariwal, 2021, eq. 17) is capped at 0.999.
    """
    if name not in NOISE_SCHEDULES:
        raise ValueError(f"noise_schedule must be one of {NOISE_SCHEDULES}, got {name!r}")
    if steps < 2:
        raise ValueError(f"diffusion_steps must be at least 2, got {steps}")
    if name == "linear":
        scale = 1000 / steps
        betas = torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)
        if betas[-1] >= 1:
            raise ValueError(f"the linear schedule needs more than 20 diffusion_steps, got {steps}")
        return betas
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((t + 0.008) / 1.008 * (math.pi / 2)) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def trained_sigmas(config: ModelConfig) -> Tensor:
    """Noise levels sigma_t = sqrt((1 - abar_t) / abar_t), index = timestep, ascending up to ``config.sigma_max``.

    Returns:
        (T,) float64, at most ``config.diffusion_steps`` long.
    """
    alphas_cumprod = torch.cumprod(1 - noise_schedule(config.noise_schedule, config.diffusion_steps), dim=0)
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
    return sigmas[sigmas <= config.sigma_max]


class GuidedDiffusionDenoiser(nn.Module):
    """``denoiser(x, sigma) -> x0_hat`` for states ``x = x0 + sigma * eps``, images in [-1, 1].

    Args:
        unet: the network; its weights are frozen here, gradients flow to ``x`` only.
        config: what it was trained on.
        label: class of a class-conditional network; may be given at each call instead.

    Attributes:
        sigmas: (T,) float64, the trained noise levels, ascending.
        image_size: side in pixels of the training images; other sizes work less well.
        size_multiple: height and width must be multiples of this.
    """

    def __init__(self, unet: UNet, config: ModelConfig, label: int | None = None):
        super().__init__()
        self.unet = unet.eval().requires_grad_(False)
        self.config = config
        self.sigmas = trained_sigmas(config)  # on the CPU: not every device has float64
        self.image_size = config.image_size
        self.size_multiple = config.unet.size_multiple
        self.label = None if label is None else check_label(label, config.unet.num_classes)

    def timestep(self, sigma: Tensor) -> Tensor:
        """The trained timestep nearest to each ``sigma`` in log sigma, (B,) int64 on the device of ``sigma``."""
        log_sigma = sigma.detach().to("cpu", torch.float64).reshape(-1).log()
        return (log_sigma[:, None] - self.sigmas.log()[None]).abs().argmin(dim=1).to(sigma.device)

    def forward(self, x: Tensor, sigma: Tensor | float, label: int | Tensor | None = None) -> Tensor:
        """Estimate the clean image.

        Args:
            x: (B, C, H, W) noisy images.
            sigma: noise level, a number, 0-dim or (B,).
            label: class, a number or (B,) integers; default the one given to the constructor.

        Returns:
            (B, C, H, W), the type of ``x``, not clipped.
        """
        self._check_image(x)
        batch = x.shape[0]
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
        if sigma.numel() not in (1, batch):
            raise ValueError(f"sigma has {sigma.numel()} values for a batch of {batch}; give one, or one per image")
        t = self.timestep(sigma).expand(batch)
        sigma = sigma.expand(batch)[:, None, None, None]
        unit = x / (sigma**2 + 1) ** 0.5
        out = self.unet(unit.to(self.unet.dtype), t, y=self._labels(label, batch, x.device))
        eps = out[:, : self.config.unet.in_channels]  # the rest is the learned variance
        return x - sigma * eps.to(x.dtype)

    def _check_image(self, x: Tensor) -> None:
        channels, multiple = self.config.unet.in_channels, self.size_multiple
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"x must be (B, {channels}, H, W), got {tuple(x.shape)}")
        if x.shape[2] % multiple or x.shape[3] % multiple or 0 in x.shape[2:]:
            raise ValueError(
                f"this model takes heights and widths that are multiples of {multiple} "
                f"(trained at {self.image_size}), got {x.shape[2]} x {x.shape[3]}"
            )

    def _labels(self, label, batch: int, device) -> Tensor | None:
        label = self.label if label is None else label
        if isinstance(label, Tensor) and label.numel() > 1:
            labels = torch.tensor([check_label(i, self.config.unet.num_classes) for i in label.tolist()])
            if len(labels) != batch:
                raise ValueError(f"label has {len(labels)} values for a batch of {batch}; give one, or one per image")
            return labels.to(device)
        label = check_label(None if label is None else int(label), self.config.unet.num_classes)
        return None if label is None else torch.full((batch,), label, device=device)


def check_label(label: int | None, num_classes: int | None) -> int | None:
    """Return ``label`` if the network takes it (None for an unconditional one), else raise a ValueError."""
    if num_classes is None:
        if label is not None:
            raise ValueError(f"label is {label}, but this model is unconditional; leave it out")
        return None
    if label is None:
        raise ValueError(f"this model is class-conditional: label must be 0..{num_classes - 1}, none was given")
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < num_classes:
        raise ValueError(f"label must be an integer in 0..{num_classes - 1}, got {label!r}")
    return label
