"""A small diffusion model in the latent space of a tiny FLUX.2 autoencoder (TAEF2), for measuring on latents.

The autoencoder is a folder with `taef2.py` and its two weight files (see `--taef2`); a latent of a 128 x 128 picture is
(32, 16, 16). The model sees latents normalised per channel. It predicts v in the unit-variance parametrisation
(Salimans and Ho, 2022) and is wrapped as a denoiser of VE states, `x = z + sigma * eps`, for the library's samplers.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Callable

import torch
from torch import Tensor, autocast, nn

from gradpaint.guided_diffusion import ModelConfig, UNet, UNetConfig, trained_sigmas

SIZE, CHANNELS, RATIO = 128, 32, 8
CONFIG = ModelConfig(
    unet=UNetConfig(
        model_channels=96,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_res_blocks=1,
        channel_mult=(1, 2),
        attention_ds=(2,),
        num_head_channels=32,
        resblock_updown=False,
        conv_resample=False,
    ),
    noise_schedule="linear",
    diffusion_steps=1000,
    image_size=SIZE // RATIO,
    sigma_max=15.0,
)


class LatentSpace:
    """The autoencoder with normalised latents: pictures in [-1, 1] (B, 3, H, W) <-> (B, 32, H/8, W/8) of unit variance.

    mean, std: (32,) of the raw latents. `decode` is differentiable and does not clamp.
    """

    def __init__(self, folder: Path, mean: Tensor | None = None, std: Tensor | None = None):
        self.encoder, self.decoder = _load_autoencoder(Path(folder))
        self.mean = torch.zeros(CHANNELS) if mean is None else mean
        self.std = torch.ones(CHANNELS) if std is None else std

    def raw(self, z: Tensor) -> Tensor:
        """Latents as the autoencoder has them."""
        return z * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        return (self.encoder(images / 2 + 0.5).float() - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.raw(z)).float() * 2 - 1


def _load_autoencoder(folder: Path) -> tuple[Callable, Callable]:
    if not (folder / "taef2.py").exists():
        raise ValueError(f"--taef2 is {folder}, but must be a folder with taef2.py and its two weight files")
    spec = importlib.util.spec_from_file_location("taef2", folder / "taef2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(folder)


class LatentDenoiser(nn.Module):
    """`denoiser(x, sigma) -> z_hat`, x = z + sigma * eps (B, 32, H, W). The UNet predicts v = (eps - sigma z) / s,
    s = sqrt(1 + sigma^2), from x / s; then z_hat = x / s^2 - v sigma / s. bfloat16: the UNet runs under autocast."""

    def __init__(self, unet: UNet, bfloat16: bool = True):
        super().__init__()
        self.unet = unet.eval().requires_grad_(False)
        self.sigmas = trained_sigmas(CONFIG)
        self.bfloat16 = bfloat16

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        sigma = float(sigma)
        t = (self.sigmas.log() - torch.tensor(sigma).double().log()).abs().argmin().expand(len(x))
        s = (1 + sigma**2) ** 0.5
        with autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            v = self.unet(x / s, t).float()
        return x / s**2 - v * (sigma / s)


def load(checkpoint: Path, taef2: Path) -> tuple[LatentDenoiser, LatentSpace]:
    """The trained model (EMA weights) and its latent space."""
    if not Path(checkpoint).exists():
        raise ValueError(f"--model is {checkpoint}, but there is no such file; make it with training/train_latent.py")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    unet = UNet(CONFIG.unet)
    unet.load_state_dict(state["ema"])
    return LatentDenoiser(unet), LatentSpace(taef2, state["mean"], state["std"])
