"""Time of a default GradPaint run over the host's plain masked KSampler, on a real pretrained 64x64 model.

    OMP_NUM_THREADS=1 python benchmarks/anime64_time.py --assets ../shared

Plain, guided, plain, in turn, in CPU seconds of one process; shown: the median over the rounds of the guided run's time
over the mean of its two neighbours.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import time
from pathlib import Path

import anime64_host
import bench_host
import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=bench_host.ROOT.parent / "shared")
    parser.add_argument("--n", type=int, default=2, help="images in the batch")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sampler", default="ddpm")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    pack = bench_host.load("cpu").package
    part = lambda name: importlib.import_module(f"{pack.__name__}.{name}")
    files = anime64_host.image_files(args.assets, args.n)
    images = torch.cat([part("gradpaint.image.files").load_image(file) for file in files])
    masks = part("gradpaint.masks").make_masks("thick", 64, 64, range(args.n))
    plain = anime64_host.load_model(args.assets, bfloat16=False)
    settings = part("gradpaint.method.settings").GuidanceSettings()
    guided = part("nodes.host.sampling.wrapper").apply_gradpaint(plain, settings)

    def seconds(model) -> float:
        import comfy.sample

        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
        latent = torch.where(masks == 0, images, torch.zeros_like(images))
        started = time.process_time()
        with torch.inference_mode():
            comfy.sample.sample(
                model,
                noise,
                args.steps,
                1.0,
                args.sampler,
                "normal",
                anime64_host.CONDITIONING,
                anime64_host.CONDITIONING,
                latent,
                noise_mask=masks,
                disable_pbar=True,
                seed=1,
            )
        return time.process_time() - started

    seconds(guided)  # warms up
    ratios = []
    for _ in range(args.rounds):
        before, own, after = seconds(plain), seconds(guided), seconds(plain)
        ratios.append(2 * own / (before + after))
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    bench_host.save(
        f"{args.steps} steps {args.sampler}, {args.n} images, float32: guided run / plain run, median "
        f"{statistics.median(ratios):.2f} ({shown})\n\n{bench_host.footer('cpu')}",
        None,
    )


if __name__ == "__main__":
    main()
