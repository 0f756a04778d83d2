"""A guided-diffusion network as a denoiser of variance-exploding states, and the variance it has learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .schedule import respaced_sigmas, trained_sigmas
from .unet import UNet


class GuidedDiffusionDenoiser(nn.Module):
    """`denoiser(x, sigma) -> x0_hat` for states `x = x0 + sigma * eps`, images in [-1, 1].

    Args:
        unet: the network. Its weights are frozen here; gradients flow to `x` only.
        config: what it was trained on.
        label: class of a class-conditional network; each call may name another.

    Attributes:
        sigmas: (T,) float64, the trained noise levels, ascending.
        image_size: side in pixels of the training images; other sizes work less well.
        size_multiple: height and width must be multiples of this.

    Raises:
        ValueError: the label is not one that the network takes.
    """

    def __init__(self, unet: UNet, config: ModelConfig, label: int | None = None):
        super().__init__()
        self.unet = unet.eval().requires_grad_(False)
        self.config = config
        self.sigmas = trained_sigmas(config)  # on the CPU: not every device has float64
        self.image_size = config.image_size
        self.size_multiple = config.unet.size_multiple
        self.label = None if label is None else check_label(label, config.unet.num_classes)

    @property
    def learns_variance(self) -> bool:
        """Whether the network has learned the variance of the DDPM sampler's noise."""
        return self.config.unet.learned_sigma

    def learned_variance(self, values: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """See the function of this name."""
        return learned_variance(values, sigma, sigma_next)

    def respaced_sigmas(self, steps: int) -> Tensor:
        """Noise levels of the original's run of that many steps, (steps + 1,), see the function of this name."""
        return respaced_sigmas(self.config, str(steps))

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the trained timestep nearest to each `sigma` in log sigma, (B,) int64 on the device of `sigma`."""
        log_sigma = sigma.detach().to("cpu", torch.float64).reshape(-1).log()
        return (log_sigma[:, None] - self.sigmas.log()[None]).abs().argmin(dim=1).to(sigma.device)

    def forward(self, x: Tensor, sigma: Tensor | float, label: int | Tensor | None = None) -> Tensor:
        """Estimate the clean image; see `evaluate`, whose first result this is."""
        return self.evaluate(x, sigma, label)[0]

    def evaluate(
        self, x: Tensor, sigma: Tensor | float, label: int | Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Estimate the clean image and return what the network says about the variance of the next step.

        Args:
            x: (B, C, H, W) noisy images.
            sigma: noise level, a number, 0-dim or (B,).
            label: class, a number or (B,) integers; by default the constructor's.

        Returns:
            The estimate x0_hat, (B, C, H, W) in the type of `x`, not clipped, and the raw variance values of the same
            shape and type for `learned_variance`: about -1 to 1, not clipped; None if the network has not learned
            them.

        Raises:
            ValueError: a shape, a number of noise levels or a label that the network does not take.
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
        channels = self.config.unet.in_channels
        v = out[:, channels:].to(x.dtype) if self.config.unet.learned_sigma else None
        return x - sigma * out[:, :channels].to(x.dtype), v

    def _check_image(self, x: Tensor) -> None:
        channels, multiple = self.config.unet.in_channels, self.size_multiple
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"x must be (B, {channels}, H, W), got {tuple(x.shape)}")
        if x.shape[2] % multiple or x.shape[3] % multiple or 0 in x.shape[2:]:
            raise ValueError(
                f"this model takes heights and widths that are multiples of {multiple} "
                f"(trained at {self.image_size}), got {x.shape[2]} x {x.shape[3]}"
            )

    def _labels(self, label: int | Tensor | None, batch: int, device: torch.device) -> Tensor | None:
        """Return one class per image, (B,) int64, or None for an unconditional network."""
        label = self.label if label is None else label
        if isinstance(label, Tensor) and label.numel() > 1:
            labels = torch.tensor([check_label(i, self.config.unet.num_classes) for i in label.tolist()])
            if len(labels) != batch:
                raise ValueError(f"label has {len(labels)} values for a batch of {batch}; give one, or one per image")
            return labels.to(device)
        label = check_label(None if label is None else int(label), self.config.unet.num_classes)
        return None if label is None else torch.full((batch,), label, device=device)


def check_label(label: int | None, num_classes: int | None) -> int | None:
    """Return `label` if a network of that many classes takes it (None: an unconditional one), else raise ValueError."""
    if num_classes is None:
        if label is not None:
            raise ValueError(f"label is {label}, but this model is unconditional; leave it out")
        return None
    if label is None:
        raise ValueError(f"this model is class-conditional: label must be 0..{num_classes - 1}, none was given")
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < num_classes:
        raise ValueError(f"label must be an integer in 0..{num_classes - 1}, got {label!r}")
    return label


def learned_variance(v: Tensor, sigma: float, sigma_next: float, sigma_previous: float | None = None) -> Tensor:
    """Return the variance of the model's p(x_next | x) for states `x = x0 + sigma * eps`.

    Improved DDPM (Nichol and Dhariwal, 2021, eq. 15): log variance = f log(beta) + (1 - f) log(beta_tilde) with
    f = (v + 1) / 2, where beta = 1 - abar / abar_next and beta_tilde = beta (1 - abar_next) / (1 - abar) belong to the
    step that is taken, however many trained timesteps it spans; abar = 1 / (1 + sigma^2). Times 1 + sigma_next^2,
    which takes the unit-variance states of the formula to ours.

    Args:
        v: (B, C, H, W), from `GuidedDiffusionDenoiser.evaluate` at `sigma`.
        sigma: the noise level of x.
        sigma_next: the noise level of x_next, lower.
        sigma_previous: the noise level of the step before x, higher. Only the step to 0 needs it: there beta_tilde is 0
            and its logarithm does not exist, so the original takes beta_tilde of the previous step. (Its sampler adds
            no noise in that step, whatever the variance.)

    Returns:
        (B, C, H, W), at least float32.

    Raises:
        ValueError: the noise levels are not in that order, or `sigma_previous` is missing.
    """
    if not 0 <= sigma_next < sigma:
        raise ValueError(f"sigma_next is {sigma_next}, but must be from 0 to below sigma, {sigma}")
    log_beta = math.log((sigma**2 - sigma_next**2) / (1 + sigma**2))
    if sigma_next > 0:
        log_tilde = _log_beta_tilde(sigma, sigma_next)
    elif sigma_previous is not None and sigma_previous > sigma:
        log_tilde = _log_beta_tilde(sigma_previous, sigma)
    else:
        raise ValueError(
            f"sigma_previous is {sigma_previous}, but a step to sigma_next 0 needs one above sigma, {sigma}"
        )
    share = (v.to(torch.promote_types(v.dtype, torch.float32)) + 1) / 2
    return (1 + sigma_next**2) * (share * log_beta + (1 - share) * log_tilde).exp()


def _log_beta_tilde(sigma: float, sigma_next: float) -> float:
    return math.log((sigma**2 - sigma_next**2) * sigma_next**2 / (sigma**2 * (1 + sigma_next**2)))
