"""Does one `strength` hold across steps, samplers, kinds of model and sizes? Inside the host, on real models.

    python benchmarks/strength.py --assets ../shared --state /tmp/strength --out benchmarks/results/strength.md

For each case (system, sampler, steps) the same images are repainted from the same noise at each strength; shown are the
scores at strength 1 and the paired differences of the others to it. Finished cases are kept in --state: a run that was
cut off goes on. Networks in bfloat16 autocast. See `systems` for what is measured on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

import bench_host
import systems
import torch
from anime64_host import CONDITIONING

STRENGTHS = (0.0, 0.5, 1.0, 2.0)
CASES = [  # system, sampler, steps
    *(("anime64", "ddpm", steps) for steps in (8, 15, 30, 100)),
    *(("anime64", "euler", steps) for steps in (15, 30)),
    ("anime64", "dpmpp_2m", 20),
    ("anime64 as flow", "euler", 30),
    *(("demo", "ddpm", steps) for steps in (15, 30, 100)),
    *(("demo", "euler", steps) for steps in (15, 30)),
    *(("demo", sampler, 20) for sampler in ("heun", "euler_ancestral", "uni_pc", "dpmpp_2m")),
    ("demo as flow", "euler", 30),
    ("demo128", "ddpm", 30),
]
FEW_STEPS = [
    (system, sampler, steps)
    for system in ("anime64", "anime64 as flow", "demo", "demo as flow")
    for sampler in ("euler", "dpmpp_2m")
    for steps in (4, 6, 8)
]
SEED = 11


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=bench_host.ROOT.parent / "shared")
    parser.add_argument("--n", type=int, default=16, help="images (of demo128 half as many)")
    parser.add_argument("--first", type=int, default=0, help="first image")
    parser.add_argument("--strengths", type=float, nargs="+", default=list(STRENGTHS))
    parser.add_argument("--only", default="", help="cases whose system begins with this")
    parser.add_argument("--few-steps", action="store_true", help="4 to 8 steps, as turbo models are run, instead")
    parser.add_argument("--finished", action="store_true", help="only the cases that are in --state")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--state", type=Path, required=True, help="folder for finished cases")
    parser.add_argument("--out", type=Path, help="Markdown file")
    return parser.parse_args()


class Study:
    def __init__(self, args, pack):
        self.args, self.pack, self._built = args, pack, {}
        self.settings = importlib.import_module(f"{pack.__name__}.gradpaint.method.settings")
        self.guidance = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.wrapper")
        self.metrics = importlib.import_module(f"{pack.__name__}.gradpaint.evaluation.metrics")

    def system(self, name: str) -> systems.System:
        if name not in self._built:
            share = 0.5 if name == "demo128" else 1
            self._built = {
                name: systems.build(name, self.pack, self.args.assets, round(share * self.args.n), self.args.first)
            }
        return self._built[name]

    def scores(self, name: str, sampler: str, steps: int, strength: float) -> dict:
        """metric -> one number per image; from --state where they are there."""
        file = self.file(name, sampler, steps, strength)
        if not file.is_file():
            scores = self.measure(self.system(name), sampler, steps, strength)
            self.args.state.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(scores))
            print(file.stem, flush=True)
        return {metric: torch.tensor(values) for metric, values in json.loads(file.read_text()).items()}

    def file(self, name: str, sampler: str, steps: int, strength: float) -> Path:
        key = f"{name} {sampler} {steps} {strength:g} n{self.args.n} first{self.args.first}".replace(" ", "_")
        return self.args.state / f"{key}.json"

    def finished(self, *case) -> bool:
        return all(self.file(*case, strength).is_file() for strength in self.args.strengths)

    def measure(self, system: systems.System, sampler: str, steps: int, strength: float) -> dict:
        settings = self.settings.GuidanceSettings(strength=strength)
        model = self.guidance.apply_gradpaint(system.model, settings)
        noise = torch.randn(system.images.shape, generator=torch.Generator().manual_seed(SEED))
        parts = [
            self.sample(model, system, sampler, steps, noise, slice(i, i + self.args.batch))
            for i in range(0, len(noise), self.args.batch)
        ]
        out, metrics = torch.cat(parts), self.metrics
        return {
            "lpips": metrics.lpips(out, system.images).tolist(),
            "masked_mse": metrics.masked_mse(out, system.images, system.masks).tolist(),
            "seam": metrics.seam_energy(out, system.masks).tolist(),
            "true seam": metrics.seam_energy(system.images, system.masks).tolist(),
        }

    def sample(self, model, system: systems.System, sampler: str, steps: int, noise, part: slice) -> torch.Tensor:
        import comfy.sample

        images, masks = system.images[part], system.masks[part]
        latent = torch.where(masks == 0, images, torch.zeros_like(images))
        with torch.inference_mode():
            out = comfy.sample.sample(
                model,
                noise[part].clone(),
                steps,
                1.0,
                sampler,
                "normal",
                CONDITIONING,
                CONDITIONING,
                latent,
                noise_mask=masks,
                disable_pbar=True,
                seed=SEED + part.start,
            )
        return torch.where(masks > 0, out.clamp(-1, 1), images).clone()

    def row(self, name: str, sampler: str, steps: int) -> list[str]:
        by_strength = {strength: self.scores(name, sampler, steps, strength) for strength in self.args.strengths}
        base, metrics = by_strength[1.0], self.metrics
        cells = [name, sampler, str(steps), f"{base['lpips'].mean():.4f}"]
        join = " / ".join
        for strength, scores in by_strength.items():
            if strength != 1.0:
                paired = metrics.paired_difference(scores["lpips"], base["lpips"])
                cells.append(f"{paired.value:+.4f} +- {paired.error:.4f}")
        cells.append(join(f"{scores['masked_mse'].mean():.4f}" for scores in by_strength.values()))
        cells.append(
            join(f"{metrics.pooled_ratio(scores['seam'], scores['true seam']):.2f}" for scores in by_strength.values())
        )
        return cells


def main() -> None:
    args = arguments()
    os.environ["TORCH_HOME"] = str((args.assets / "torch_home").resolve())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    study = Study(args, bench_host.load("cpu").package)
    rows = [
        study.row(*case)
        for case in (FEW_STEPS if args.few_steps else CASES)
        if case[0].startswith(args.only) and (study.finished(*case) or not args.finished)
    ]
    others = [f"LPIPS, strength {strength:g} minus 1" for strength in args.strengths if strength != 1.0]
    listed = " / ".join(f"{strength:g}" for strength in args.strengths)
    header = [
        "system",
        "sampler",
        "steps",
        "LPIPS, strength 1",
        *others,
        f"masked MSE at {listed}",
        f"seam at {listed}",
    ]
    title = (
        f"GradPaint by strength, default settings otherwise; {args.n} images, of demo128 {args.n // 2}; thick "
        f"masks; paired differences +- standard error over images."
    )
    bench_host.save("\n\n".join([title, bench_host.table(header, rows), bench_host.footer("cpu")]), args.out)


if __name__ == "__main__":
    main()
