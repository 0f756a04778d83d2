"""A latent diffusion model as a denoiser of variance-exploding latents, with its codec."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..method.decoders import View, view
from .config import LatentDiffusionConfig
from .first_stage import VQModel
from .unet import ClassEmbedder, LatentUNet


def trained_sigmas(config: LatentDiffusionConfig) -> Tensor:
    """Noise levels sigma_t = sqrt((1 - abar_t) / abar_t), index = timestep, ascending: (T,) float64.

    LDM's "linear" schedule is linear in sqrt(beta).
    """
    ends = config.linear_start**0.5, config.linear_end**0.5
    betas = torch.linspace(*ends, config.timesteps, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


class LatentDiffusionDenoiser(nn.Module):
    """``denoiser(x, sigma) -> x0_hat`` for latents ``x = x0 + sigma * eps``, with ``encode`` and ``decode``.

    Args:
        unet, first_stage: the networks; their weights are frozen here, gradients flow to ``x`` only.
        config: what they were trained on.
        classes: the class embedder of a class-conditional model.
        label: class; may be given at each call instead. Where neither is given, the class that stands for none.

    Attributes:
        sigmas: (T,) float64, the trained noise levels, ascending.
        image_size: side in pixels of the training images; other sizes work less well.
        size_multiple: height and width of an image must be multiples of this, in pixels.
        latent_multiple: the same for latents, in cells.
        downscale: side of a latent cell in pixels.
    """

    def __init__(
        self,
        unet: LatentUNet,
        first_stage: VQModel,
        config: LatentDiffusionConfig,
        classes: ClassEmbedder | None = None,
        label: int | None = None,
    ):
        super().__init__()
        self.unet, self.first_stage, self.classes, self.config = unet, first_stage, classes, config
        self.eval().requires_grad_(False)
        self.sigmas = trained_sigmas(config)  # on the CPU: not every device has float64
        self.image_size = config.image_size
        self.size_multiple = config.size_multiple
        self.latent_multiple = config.unet.size_multiple
        self.downscale = config.first_stage.downscale
        self.label = None if label is None else check_label(label, config)
        self.codec_dtype = next(first_stage.parameters()).dtype

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latent (B, C, h, w), the type of ``image``, not quantized."""
        channels, multiple = self.config.first_stage.image_channels, self.downscale
        if image.ndim != 4 or image.shape[1] != channels or image.shape[2] % multiple or image.shape[3] % multiple:
            raise ValueError(
                f"image must be (B, {channels}, H, W) with H and W multiples of {multiple}, got {tuple(image.shape)}"
            )
        return self.first_stage.encode(image.to(self.codec_dtype)).to(image.dtype) * self.config.scale_factor

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w), quantized first -> image (B, 3, H, W) in [-1, 1] up to overshoot, the type of ``latent``.

        Differentiable: the gradient passes straight through the quantizer.
        """
        scaled = (latent / self.config.scale_factor).to(self.codec_dtype)
        return self.first_stage.decode(scaled).to(latent.dtype)

    def view(self, latent: Tensor, mask: Tensor, border_width: int = 1, fine_mask: Tensor | None = None) -> View:
        """The decoded image for the loss at the border, see `method.decoders.view`."""
        return view(self.decode, latent, mask, border_width, fine_mask)

    def timestep(self, sigma: Tensor) -> Tensor:
        """The trained timestep nearest to each ``sigma`` in log sigma, (B,) int64 on the device of ``sigma``."""
        log_sigma = sigma.detach().to("cpu", torch.float64).reshape(-1).log()
        return (log_sigma[:, None] - self.sigmas.log()[None]).abs().argmin(dim=1).to(sigma.device)

    def forward(self, x: Tensor, sigma: Tensor | float, label: int | Tensor | None = None) -> Tensor:
        """Estimate the clean latent.

        Args:
            x: (B, C, h, w) noisy latents.
            sigma: noise level, a number, 0-dim or (B,).
            label: class, a number or (B,) integers; default the one given to the constructor.

        Returns:
            (B, C, h, w), the type of ``x``.
        """
        self._check_latent(x)
        batch = x.shape[0]
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
        if sigma.numel() not in (1, batch):
            raise ValueError(f"sigma has {sigma.numel()} values for a batch of {batch}; give one, or one per latent")
        t = self.timestep(sigma).expand(batch)
        sigma = sigma.expand(batch)[:, None, None, None]
        unit = x / (sigma**2 + 1) ** 0.5
        context = self._context(label, batch, x.device)
        eps = self.unet(unit.to(self.unet.dtype), t, context=context)
        return x - sigma * eps.to(x.dtype)

    def _check_latent(self, x: Tensor) -> None:
        channels, multiple = self.config.unet.in_channels, self.latent_multiple
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"x must be a latent (B, {channels}, h, w), got {tuple(x.shape)}")
        if x.shape[2] % multiple or x.shape[3] % multiple or 0 in x.shape[2:]:
            raise ValueError(
                f"this model takes latents whose height and width are multiples of {multiple}, images of "
                f"{self.size_multiple} (trained at {self.image_size}), got {x.shape[2]} x {x.shape[3]}"
            )

    def _context(self, label: int | Tensor | None, batch: int, device: torch.device) -> Tensor | None:
        label = self.label if label is None else label
        if self.classes is None:
            check_label(label, self.config)
            return None
        given = label.tolist() if isinstance(label, Tensor) and label.ndim else [label]
        labels = [check_label(None if one is None else int(one), self.config) for one in given]
        if len(labels) not in (1, batch):
            raise ValueError(f"label has {len(labels)} values for a batch of {batch}; give one, or one per latent")
        return self.classes(torch.tensor(labels, device=device).expand(batch))


def check_label(label: int | Tensor | None, config: LatentDiffusionConfig) -> int | None:
    """`label`, or for None the class that stands for none; None for an unconditional model.

    Raises:
        ValueError: a label that the model does not take, or none where it needs one.
    """
    count = config.num_classes
    if count is None:
        if label is not None:
            raise ValueError(f"label is {label}, but this model is unconditional; leave it out")
        return None
    if label is None:
        if config.null_label is None:
            raise ValueError(f"this model is class-conditional: label must be 0..{count - 1}, none was given")
        return config.null_label
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < count:
        raise ValueError(f"label must be an integer in 0..{count - 1}, got {label!r}")
    return label
