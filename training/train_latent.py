"""Train the small latent model that benchmarks/alignment_latent.py measures on, on procedural landscapes.

    OMP_NUM_THREADS=1 python training/train_latent.py --taef2 ../shared/taef2 --out /tmp/latent --minutes 25

One CPU core, bfloat16. First the scenes are rendered and encoded, once, into OUT/pool.pt; then the model trains by the
clock: the learning rate reaches zero after `--minutes`. Writes OUT/latent.pt (EMA weights and the latents' statistics)
every few minutes and at the end, and OUT/log.jsonl. The file depends on the autoencoder's weights: it is not shipped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import autocast

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from latent_space import CONFIG, SIZE, LatentSpace  # noqa: E402
from train_demo import EMA_DECAY, WARMUP_STEPS, norm_in_bfloat16  # noqa: E402

import gradpaint.guided_diffusion.unet as unet_module  # noqa: E402
from gradpaint.guided_diffusion import UNet, trained_sigmas  # noqa: E402
from gradpaint.models.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, landscapes  # noqa: E402

CHUNK = 16  # scenes encoded at a time
HELD_OUT_COUNT = 32


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--taef2", type=Path, required=True, help="folder of the tiny FLUX.2 autoencoder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0, help="of training, without the encoding")
    parser.add_argument("--pool", type=int, default=6000, help="training scenes")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-minutes", type=float, default=4.0)
    return parser.parse_args(arguments)


@torch.no_grad()
def encoded(space: LatentSpace, seeds) -> torch.Tensor:
    """Raw latents of these scenes, (len(seeds), 32, 16, 16) float16."""
    parts = []
    for start in range(0, len(seeds), CHUNK):
        with autocast("cpu", torch.bfloat16):
            parts.append(space.encode(landscapes(seeds[start : start + CHUNK], SIZE)).half())
    return torch.cat(parts)


def latent_pool(path: Path, taef2: Path, count: int) -> torch.Tensor:
    """The first `count` training scenes' raw latents, made once and then read from `path`."""
    if not path.exists():
        torch.save(encoded(LatentSpace(taef2), TRAIN_SEEDS[:count]), path)
    pool = torch.load(path, weights_only=True)
    if len(pool) < count:
        raise ValueError(f"{path} holds {len(pool)} scenes, fewer than --pool {count}; delete it")
    return pool[:count]


def loss(model, z: torch.Tensor, sigma: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Squared error of v at these timesteps, normalised z (B, C, H, W) -> (B,)."""
    sigma = sigma[:, None, None, None]
    s = (1 + sigma**2).sqrt()
    v = model(((z + sigma * eps) / s).to(model.dtype), t).float()
    return (v - (eps - sigma * z) / s).square().mean(dim=(1, 2, 3))


@torch.no_grad()
def held_out_loss(model, z: torch.Tensor, sigmas: torch.Tensor) -> float:
    """Mean over held-out scenes at fixed noise, timesteps spread evenly."""
    t = (torch.arange(len(z)) * len(sigmas)) // len(z)
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    return loss(model, z, sigmas[t], t, eps).mean().item()


def train(args: argparse.Namespace) -> Path:
    """The whole run; returns the path of the checkpoint."""
    args.out.mkdir(parents=True, exist_ok=True)
    unet_module.normalized = norm_in_bfloat16
    pool = latent_pool(args.out / "pool.pt", args.taef2, args.pool)
    mean, std = pool.float().mean(dim=(0, 2, 3)), pool.float().std(dim=(0, 2, 3))
    space = LatentSpace(args.taef2, mean, std)
    held_out = space.encode(landscapes(HELD_OUT_SEEDS[-HELD_OUT_COUNT:], SIZE))
    torch.manual_seed(args.seed)
    model, runner = UNet(CONFIG.unet), UNet(CONFIG.unet, dtype=torch.bfloat16)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    masters, fast = list(model.parameters()), list(runner.parameters())
    optimiser = torch.optim.AdamW(masters, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01)
    sigmas = trained_sigmas(CONFIG).float()
    checkpoint, generator = args.out / "latent.pt", torch.Generator().manual_seed(args.seed)

    def save(step: int, recent: list[float]) -> None:
        torch.save(dict(ema=ema.state_dict(), mean=mean, std=std, step=step), checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)
        line = dict(
            step=step,
            minutes=round((time.monotonic() - started) / 60, 2),
            loss=sum(recent) / len(recent),
            held_out=held_out_loss(ema, held_out, sigmas),
        )
        with open(args.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    started = saved = time.monotonic()
    losses, step, progress = [], 0, 0.0
    while progress < 1:
        for quick, master in zip(fast, masters):
            quick.data.copy_(master.data)
        picks = torch.randint(len(pool), (args.batch,), generator=generator)
        strata = torch.randperm(args.batch, generator=generator) + torch.rand(args.batch, generator=generator)
        t = (strata / args.batch * len(sigmas)).long()
        z = (pool[picks].float() - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        value = loss(runner, z, sigmas[t], t, torch.randn(z.shape, generator=generator)).mean()
        value.backward()
        for quick, master in zip(fast, masters):
            master.grad, quick.grad = quick.grad.float(), None
        rate = args.lr * min((step + 1) / WARMUP_STEPS, 1.0) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimiser.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimiser.step()
        decay = min(EMA_DECAY, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(list(ema.parameters()), [p.detach() for p in masters], 1.0 - decay)
        losses.append(value.item())
        step += 1
        progress = min((time.monotonic() - started) / (60 * args.minutes), 1.0)
        if time.monotonic() - saved > 60 * args.save_minutes:
            save(step, losses[-200:])
            saved = time.monotonic()
    save(step, losses[-200:])
    return checkpoint


def main(arguments=None) -> None:
    args = parse(arguments)
    print(train(args))


if __name__ == "__main__":
    main()
