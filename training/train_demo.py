"""Train the bundled demo model: a small guided-diffusion UNet on procedural landscapes.

Two CPU cores, one process each (better than two threads where other programs compete), the run that made the file:

    torchrun --nproc-per-node 2 training/train_demo.py --out runs/demo --minutes 105
    python training/train_demo.py --out runs/demo --export gradpaint/models/landscapes64.safetensors

One GPU: `python training/train_demo.py --out runs/demo --device cuda --batch 256 --minutes 15`. `--resume` goes on
from the last checkpoint. The learning rate follows the clock: it reaches zero after `--minutes` of training time.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_task import CONFIG, HELD_OUT_COUNT, MIN_SNR_GAMMA, SIZE, Noiser, draw, held_out_loss, scene_pool

import gradpaint.guided_diffusion.unet as unet_module
from gradpaint.drawing.contact_sheet import contact_sheet
from gradpaint.guided_diffusion import GuidedDiffusionDenoiser, UNet
from gradpaint.models.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS
from gradpaint.sampling.inpaint import inpaint
from gradpaint.sampling.sigmas import spaced_sigmas

EMA_DECAY = 0.999
WARMUP_STEPS = 200


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: checkpoint, log, sample sheets")
    parser.add_argument("--minutes", type=float, default=105.0, help="training time at which the rate reaches zero")
    parser.add_argument("--batch", type=int, default=8, help="images a step and process")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=int, default=40_000, help="scenes rendered before training")
    parser.add_argument("--pool-file", type=Path, help="where they are kept, default OUT/pool.npy")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--float32", action="store_true", help="not bfloat16")
    parser.add_argument("--save-minutes", type=float, default=10.0)
    parser.add_argument("--sheet-rows", type=int, default=4, help="rows of 8 samples drawn at each checkpoint")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export", type=Path, help="write the run's EMA weights as fp16 safetensors and stop")
    parser.add_argument("--history", help="for the card of an export: what changed between the run's resumptions")
    return parser.parse_args(arguments)


def norm_in_bfloat16(layer: torch.nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """Group norm without the detour of the features through float32; the kernel sums in float32 all the same."""
    return F.group_norm(x, layer.num_groups, layer.weight.to(x.dtype), layer.bias.to(x.dtype), layer.eps)


@torch.no_grad()
def sample_sheet(model, path: Path, device, rows: int = 4, columns: int = 8, steps: int = 30) -> None:
    """DDPM samples from fixed noise, written as a PNG."""
    denoiser = GuidedDiffusionDenoiser(copy.deepcopy(model), CONFIG)
    noise = torch.randn(rows * columns, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7)).to(device)
    everything = torch.ones(1, 1, SIZE, SIZE, device=device)
    samples = inpaint(
        denoiser,
        torch.zeros_like(noise),
        everything,
        sigmas=spaced_sigmas(denoiser.sigmas, steps),
        noise=noise,
        method="combine_image",
        progress=False,
    ).image.cpu()
    contact_sheet([list(samples[row * columns : (row + 1) * columns]) for row in range(rows)], [""] * columns).save(
        path
    )


class Trainer:
    """Model, EMA, optimiser and the clock of a run."""

    def __init__(self, args: argparse.Namespace, rank: int, world: int):
        self.args, self.rank, self.world = args, rank, world
        self.device = torch.device(args.device)
        torch.manual_seed(args.seed)
        self.model = UNet(CONFIG.unet).to(self.device)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.parameters = list(self.model.parameters())
        # The network that runs: the same weights, its torso in bfloat16.
        self.runner = self.model if args.float32 else UNet(CONFIG.unet, dtype=torch.bfloat16).to(self.device)
        self.optimiser = torch.optim.AdamW(self.parameters, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01)
        self.noiser = Noiser(self.device)
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.checkpoint = args.out / "checkpoint.pt"
        self.refresh_runner()
        if args.resume or args.export:
            self.load()

    @torch.no_grad()
    def refresh_runner(self) -> None:
        if self.runner is not self.model:
            for fast, master in zip(self.runner.parameters(), self.parameters):
                fast.copy_(master)

    def collect_gradients(self) -> None:
        if self.runner is not self.model:
            for fast, master in zip(self.runner.parameters(), self.parameters):
                master.grad, fast.grad = fast.grad.float(), None

    def load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.refresh_runner()
        self.step, self.images, self.seconds = state["step"], state["images"], state["seconds"]
        self.world = max(self.world, state["world"])

    def save(self) -> None:
        state = dict(
            model=self.model.state_dict(),
            ema=self.ema.state_dict(),
            optimiser=self.optimiser.state_dict(),
            step=self.step,
            images=self.images,
            seconds=self.seconds,
            world=self.world,
        )
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def log(self, **values) -> None:
        line = dict(step=self.step, images=self.images, seconds=round(self.seconds, 1), **values)
        with open(self.args.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def average(self, loss: torch.Tensor, progress: float) -> tuple[float, float]:
        """Average gradients, loss and clock over the processes, so that all take the same step."""
        gradients = [p.grad for p in self.parameters]
        if self.world == 1:
            return loss.item(), progress
        flat = torch.cat([g.flatten() for g in gradients] + [loss[None], loss.new_tensor([progress])])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat[:-2].split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))
        return flat[-2].item(), flat[-1].item()

    def train_step(self, pool: np.ndarray) -> tuple[float, float]:
        """One optimiser step; returns the loss and the progress of the run, 0 to 1."""
        started = time.monotonic()
        batch = draw(pool, self.args.batch, self.args.seed, self.step, self.rank, self.device)
        self.optimiser.zero_grad()
        loss = self.noiser.loss(self.runner, *batch).mean()
        loss.backward()
        self.collect_gradients()
        loss, progress = self.average(loss.detach(), self.seconds / (60.0 * self.args.minutes))
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
        rate = self.args.lr * min((self.step + 1) / WARMUP_STEPS, 1.0) * cosine
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.refresh_runner()
        decay = min(EMA_DECAY, (1.0 + self.step) / (10.0 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), [p.detach() for p in self.parameters], 1.0 - decay)
        self.step += 1
        self.images += self.args.batch * self.world
        self.seconds += time.monotonic() - started
        return loss, progress

    def report(self, losses: list[float]) -> None:
        """Checkpoint, held-out loss and a sheet of samples."""
        self.save()
        self.log(loss=sum(losses) / max(len(losses), 1), held_out=held_out_loss(self.ema, self.noiser, self.device))
        if self.args.sheet_rows > 0:
            sample_sheet(self.ema, self.args.out / "samples.png", self.device, self.args.sheet_rows)

    def run(self, pool: np.ndarray) -> None:
        losses, progress, saved = [], 0.0, self.seconds
        while progress < 1.0:
            loss, progress = self.train_step(pool)
            losses.append(loss)
            if self.rank == 0 and self.step % 50 == 0:
                self.log(loss=sum(losses[-50:]) / len(losses[-50:]))
            if self.rank == 0 and self.seconds - saved > 60.0 * self.args.save_minutes:
                self.report(losses[-200:])
                saved = self.seconds
        if self.rank == 0:
            self.report(losses[-200:])


def export(trainer: Trainer, path: Path) -> None:
    """Write the EMA weights in half precision, with what a loader and a reader need to know."""
    from safetensors.torch import save_file

    args, unet = trainer.args, CONFIG.unet
    config = {
        "num_head_channels": unet.num_head_channels,
        "use_new_attention_order": unet.use_new_attention_order,
        "noise_schedule": CONFIG.noise_schedule,
        "diffusion_steps": CONFIG.diffusion_steps,
        "image_size": SIZE,
        "sigma_max": CONFIG.sigma_max,
    }
    weights = {name: value.half().cpu().contiguous() for name, value in trainer.ema.state_dict().items()}
    trainer.ema.load_state_dict(weights)  # the loss below is that of the rounded weights
    card = {
        "name": "landscapes64",
        "data": "procedural landscapes of gradpaint.models.scenes, 64 x 64, mirrored half of the time; no photographs",
        "training_seeds": f"{TRAIN_SEEDS[0]} to {args.pool - 1}",
        "held_out_seeds": f"{HELD_OUT_SEEDS[0]} to {HELD_OUT_SEEDS[-1]}",
        "parameters": sum(p.numel() for p in trainer.parameters),
        "steps": trainer.step,
        "images_seen": trainer.images,
        "batch": args.batch * trainer.world,
        "seed": args.seed,
        "optimiser": f"AdamW, peak learning rate {args.lr:g}, {WARMUP_STEPS} warmup steps, cosine to zero by the "
        f"clock, weight decay 0.01, gradient norm clipped at 1, EMA {EMA_DECAY}",
        "objective": f"predicted noise, min-SNR-gamma {MIN_SNR_GAMMA:g} times sqrt(1 + (sigma / 2)^2), "
        f"sigma up to {CONFIG.sigma_max:g}",
        "held_out_loss": round(held_out_loss(trainer.ema, trainer.noiser, trainer.device), 6),
        "held_out_loss_on": f"EMA weights, the last {HELD_OUT_COUNT} held-out seeds, fixed noise and timesteps",
        "training_minutes": round(trainer.seconds / 60.0, 1),
        "hardware": f"{trainer.world} x {args.device}" + ("" if args.float32 else ", bfloat16 torso, float32 weights"),
        "licence": "that of the GradPaint repository",
    }
    if args.history:
        card["history"] = args.history
    metadata = {"gradpaint.config": json.dumps(config), "gradpaint.card": json.dumps(card)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata=metadata)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, held-out loss {card['held_out_loss']}")


def main(arguments=None) -> None:
    args = parse(arguments)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    args.out.mkdir(parents=True, exist_ok=True)
    if args.export:
        return export(Trainer(args, 0, 1), args.export)
    if world > 1:
        if args.device != "cpu":
            raise ValueError(f"--device is {args.device} with {world} processes; several processes are for the CPU")
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
    if not args.float32:
        unet_module.normalized = norm_in_bfloat16
    pool = scene_pool(args.pool_file or args.out / "pool.npy", args.pool)
    Trainer(args, rank, world).run(pool)


if __name__ == "__main__":
    main()
