"""GradPaint and its rivals inside the host, on a real pretrained 64x64 model: quality, cost, paired differences.

    python benchmarks/rivals.py --assets ../shared --state /tmp/rivals/ddpm30 --out ddpm30.md

Every method gets the same images with the hole blanked, the same masks and the same noise. Results are kept in --state
batch by batch; what is there for the same settings is not computed again, so a run can be cut off, extended to more
images or methods, and repeated for its tables. Not in a setting: the code itself. Remove a method's folder from --state
after changing it. CPU seconds are those of this process (one thread unless OMP_NUM_THREADS says more).

The assets (model, 32 development images, LPIPS weights) are this project's internal measurement set and not part of
the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import anime64_host
import bench_host
import torch
from tqdm import tqdm

METHODS = ["plain", "combine_image", "combine_noisy", "repaint", "mcg", "dps", "gradpaint"]
MASK_OPTIONS = {"coverage": float, "probability": float, "side": str, "position": str, "strokes": str}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=bench_host.ROOT.parent / "shared")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        metavar="METHOD",
        help="plain (the host's own masked KSampler) or as for `gradpaint evaluate`, e.g. repaint:resamplings=5",
    )
    parser.add_argument("--baseline", default="gradpaint", help="what the others are compared with")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sampler", default="ddpm", help="any of the host's")
    parser.add_argument("--scheduler", default="normal", help="any of the host's")
    parser.add_argument("--n", type=int, default=32, help="images, at most 32")
    parser.add_argument("--mask", default="thick", help="a kind of gradpaint.masks")
    for name, kind in MASK_OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, help="of the mask, for the kinds that take it")
    parser.add_argument("--seed", type=int, default=0, help="of masks and noise")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--float32", action="store_true", help="instead of bfloat16 autocast")
    parser.add_argument("--state", type=Path, required=True, help="folder for results")
    parser.add_argument("--out", type=Path, help="Markdown file")
    return parser.parse_args(argv)


class Problem:
    """Images, masks and noise, each (n, C, 64, 64). Those of the first images do not depend on n."""

    def __init__(self, args: argparse.Namespace, library: SimpleNamespace):
        files = anime64_host.image_files(args.assets, args.n)
        self.images = torch.cat([library.imageio.load_image(file) for file in files])
        options = {name: getattr(args, name) for name in MASK_OPTIONS if getattr(args, name) is not None}
        seeds = range(args.seed, args.seed + args.n)
        self.masks = library.masks.make_masks(args.mask, *self.images.shape[2:], seeds, **options)
        draw = lambda seed: torch.randn(self.images.shape[1:], generator=torch.Generator().manual_seed(seed))
        # Clear of the seeds of the samplers' own noise, which start at args.seed.
        self.noise = torch.stack([draw(10**6 + seed) for seed in seeds])

    def digest(self, part: slice) -> str:
        tensors = self.images[part], self.masks[part], self.noise[part]
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()[:16]


class Method:
    """One of --methods: what it runs with, and where its results are."""

    def __init__(self, text: str, args: argparse.Namespace, library: SimpleNamespace):
        self.text, self.args, self.library = text, args, library
        self.spec = None if text == "plain" else library.methodspec.parse_method(text)
        if self.spec is not None and self.spec.steps is not None:
            raise SystemExit(f"{text}: steps differ between methods only where --steps is given twice, in two runs")
        setting = {
            "method": text,
            **{name: getattr(args, name) for name in ("steps", "sampler", "scheduler", "seed", "batch", "float32")},
        }
        if self._guided:
            setting["settings"] = repr(self._settings)
        self.setting = json.dumps(setting, indent=1)
        digest = hashlib.sha256(self.setting.encode()).hexdigest()[:8]
        self.folder = args.state / f"{library.methodspec.slug(text)}_{digest}"

    @property
    def _guided(self) -> bool:
        return self.spec is not None and self.spec.name.startswith("gradpaint")

    @property
    def _settings(self):
        return self.spec.settings(self.library.settings.GuidanceSettings())

    def patched(self, model, records: list):
        """The MODEL to sample with."""
        if self.spec is None:
            return model
        settings = self._settings if self._guided else None
        return self.library.host_methods.apply_method(
            model, self.spec.name, settings=settings, on_record=records.append, **self.spec.options
        )


def run_batch(method: Method, model, problem: Problem, part: slice, seed: int) -> dict:
    """images (B, 3, 64, 64) in [-1, 1], forwards and backwards (model evaluations per image), seconds (CPU, each)."""
    import comfy.sample

    args = method.args
    images, masks, noise = problem.images[part], problem.masks[part], problem.noise[part]
    latent = torch.where(masks == 0, images, torch.zeros_like(images))
    records, calls = [], []
    patched = method.patched(model, records)
    counter = model.model.diffusion_model.register_forward_hook(lambda *call: calls.append(len(call[1][0])))
    started = time.process_time()
    try:
        with torch.inference_mode():
            out = comfy.sample.sample(
                patched,
                noise.clone(),
                args.steps,
                1.0,
                args.sampler,
                args.scheduler,
                anime64_host.CONDITIONING,
                anime64_host.CONDITIONING,
                latent.clone(),
                noise_mask=masks,
                disable_pbar=True,
                seed=seed,
            )
    finally:
        counter.remove()
    seconds = (time.process_time() - started) / len(images)
    evaluations, backwards = sum(calls) / len(images), records[0].backwards if records else 0
    out = torch.where(masks > 0, out.clamp(-1, 1), images)
    return {"images": out.clone(), "forwards": evaluations - backwards, "backwards": backwards, "seconds": seconds}


def kept(method: Method, model, problem: Problem, part: slice, number: int) -> dict:
    """`run_batch`, or what --state has of it."""
    file = method.folder / f"{number:03d}_{problem.digest(part)}.pt"
    if not file.is_file():
        result = run_batch(method, model(), problem, part, method.args.seed + number)
        method.folder.mkdir(parents=True, exist_ok=True)
        (method.folder / "setting.json").write_text(method.setting)
        torch.save(result, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)
    return torch.load(file)


def run_all(args: argparse.Namespace, library: SimpleNamespace, problem: Problem) -> dict:
    """name -> (images, costs); methods take turns batch by batch, so that a busy hour meets all of them."""
    loaded = []

    def model():
        loaded.extend([] if loaded else [anime64_host.load_model(args.assets, not args.float32)])
        return loaded[0]

    methods = [Method(text, args, library) for text in args.methods]
    results = {method.text: [] for method in methods}
    starts = range(0, args.n, args.batch)
    with tqdm(total=len(starts) * len(methods)) as bar:
        for number, start in enumerate(starts):
            for method in methods:
                bar.set_description(method.text)
                part = slice(start, min(start + args.batch, args.n))
                results[method.text].append(kept(method, model, problem, part, number))
                bar.update()
    return {name: _joined(batches) for name, batches in results.items()}


def _joined(batches: list[dict]) -> tuple[torch.Tensor, dict[str, float]]:
    weight = [len(batch["images"]) for batch in batches]
    mean = lambda name: sum(w * batch[name] for w, batch in zip(weight, batches)) / sum(weight)
    costs = {name: mean(name) for name in ("forwards", "backwards", "seconds")}
    return torch.cat([batch["images"] for batch in batches]), costs


def report(args: argparse.Namespace, library: SimpleNamespace) -> str:
    """Run what is missing; the tables as Markdown."""
    problem = Problem(args, library)
    runs = run_all(args, library, problem)
    scores = [
        library.scoring.score_tensors(name, images, problem.images, problem.masks, costs=costs)
        for name, (images, costs) in runs.items()
    ]
    table, number = library.results.comparison(scores, args.baseline), library.tables.number
    header = [
        "method",
        "LPIPS",
        "masked MSE",
        "seam (1 is ideal)",
        "forward",
        "forward + backward",
        "CPU s per image",
        "/ plain",
    ]
    rows = []
    for name, (_, costs) in runs.items():
        ratio = f"{costs['seconds'] / runs['plain'][1]['seconds']:.2f}" if "plain" in runs else "-"
        rows.append(
            [
                name,
                *(number(table.means[name][metric], metric) for metric in ("lpips", "masked_mse", "seam_ratio")),
                f"{costs['forwards']:.0f}",
                f"{costs['backwards']:.0f}",
                f"{costs['seconds']:.2f}",
                ratio,
            ]
        )
    options = {name: getattr(args, name) for name in MASK_OPTIONS if getattr(args, name) is not None}
    mask = args.mask + "".join(f", {name} {value}" for name, value in options.items())
    precision = "float32" if args.float32 else "bfloat16 autocast"
    title = (
        f"anime64 in ComfyUI: {args.n} images, {mask} masks ({problem.masks.mean():.0%} of the image), "
        f"{args.steps} steps {args.sampler}, {args.scheduler}, seed {args.seed}, {precision}. "
        "Mean +- standard error over images."
    )
    paired = library.results.paired(table, ("masked_mse", "lpips", "seam_energy", "abs_log_seam"))
    return "\n\n".join(filter(None, [title, bench_host.table(header, rows), paired, bench_host.footer("cpu")]))


def load_library(pack) -> SimpleNamespace:
    """The parts of an imported pack that this benchmark uses."""
    part = lambda name: importlib.import_module(f"{pack.__name__}.{name}")
    names = {
        "imageio": "image.files",
        "masks": "masks",
        "settings": "method.settings",
        "scoring": "evaluation.scoring",
        "results": "evaluation.results",
        "tables": "evaluation.tables",
        "methodspec": "evaluation.methodspec",
    }
    return SimpleNamespace(
        host_methods=part("nodes.host.sampling.methods"),
        **{key: part(f"gradpaint.{name}") for key, name in names.items()},
    )


def main() -> None:
    args = arguments()
    os.environ["TORCH_HOME"] = str((args.assets / "torch_home").resolve())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    library = load_library(bench_host.load("cpu").package)
    bench_host.save(report(args, library), args.out)


if __name__ == "__main__":
    main()
