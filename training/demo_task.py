"""What the demo model learns: its network and noise levels, batches of procedural landscapes, the weighted loss."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from gradpaint.guided_diffusion import ModelConfig, UNetConfig, trained_sigmas
from gradpaint.models.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, landscape, landscapes

SIZE = 64
CONFIG = ModelConfig(
    unet=UNetConfig(
        model_channels=32,
        out_channels=3,
        num_res_blocks=1,
        channel_mult=(1, 2, 3, 4),
        attention_ds=(8,),
        num_head_channels=32,
        resblock_updown=False,
        conv_resample=False,
    ),
    noise_schedule="linear",
    diffusion_steps=1000,
    image_size=SIZE,
    # At sigma 10 the layout is still open, but the noise of the mean colour (10 / 64) is within that of the scenes. So
    # small a network hardly learns to correct the mean colour: samples from sigma 40 come out with a cast.
    sigma_max=10.0,
)
LEVELS = len(trained_sigmas(CONFIG))  # timesteps in use
MIN_SNR_GAMMA = 5.0  # Hang et al., 2023
HELD_OUT_COUNT = 64


def scene_pool(path: Path, count: int) -> np.ndarray:
    """The first `count` training scenes, (count, SIZE, SIZE, 3) uint8, rendered once and then read from `path`."""
    if count > len(TRAIN_SEEDS):
        raise ValueError(f"--pool is {count}; allowed: at most {len(TRAIN_SEEDS)} training seeds")
    if not path.exists():
        pool = np.stack([landscape(seed, SIZE) for seed in TRAIN_SEEDS[:count]])
        partial = path.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, pool)
        partial.rename(path)
    pool = np.load(path, mmap_mode="r")
    if pool.shape[0] < count:
        raise ValueError(f"{path} holds {pool.shape[0]} scenes, fewer than --pool {count}; delete it")
    return pool[:count]


class Noiser:
    """Draws noised batches and weighs the error of the predicted noise."""

    def __init__(self, device: torch.device):
        sigmas = trained_sigmas(CONFIG)
        self.sigmas = sigmas.float().to(device)
        # min(snr, gamma) / snr, and growing with sigma above 2, because the error of x0_hat is sigma times as large:
        # the colours and the layout of a picture are decided at high noise.
        weights = (MIN_SNR_GAMMA * sigmas.square()).clamp(max=1.0) * (1.0 + (sigmas / 2.0).square()).sqrt()
        self.weights = weights.float().to(device)

    def loss(self, model, x0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Min-SNR weighted squared error of the predicted noise, (B, C, H, W) -> (B,)."""
        sigma = self.sigmas[t][:, None, None, None]
        noised = (x0 + sigma * eps) / (sigma.square() + 1.0).sqrt()
        error = (model(noised.to(model.dtype), t).float() - eps).square().mean(dim=(1, 2, 3))
        return self.weights[t] * error


def draw(pool: np.ndarray, batch: int, seed: int, step: int, rank: int, device):
    """One batch: scenes (half of them mirrored), timesteps spread over the range, noise.

    Everything follows from (seed, step, rank), so a resumed run goes on as if it had never stopped.
    """
    rng = np.random.Generator(np.random.PCG64([seed, step, rank]))
    images = torch.from_numpy(pool[np.sort(rng.integers(len(pool), size=batch))])
    x0 = images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
    flip = torch.from_numpy(rng.random(batch) < 0.5)
    x0 = torch.where(flip[:, None, None, None], x0.flip(3), x0).contiguous()
    strata = (rng.permutation(batch) + rng.random(batch)) / batch
    t = torch.from_numpy((strata * LEVELS).astype(np.int64))
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    eps = torch.randn(x0.shape, generator=noise)
    return x0.to(device), t.to(device), eps.to(device)


@torch.no_grad()
def held_out_loss(model, noiser: Noiser, device) -> float:
    """Mean loss on held-out scenes at fixed noise, one timestep a scene, evenly spread."""
    x0 = landscapes(HELD_OUT_SEEDS[-HELD_OUT_COUNT:], SIZE)
    t = (torch.arange(HELD_OUT_COUNT) * LEVELS) // HELD_OUT_COUNT
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    losses = [noiser.loss(model, *(part[i : i + 16].to(device) for part in (x0, t, eps))) for i in range(0, len(t), 16)]
    return torch.cat(losses).mean().item()
