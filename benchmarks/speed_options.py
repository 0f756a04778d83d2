"""What the speed options cost in quality and gain in time, on a real pretrained 64x64 model.

    python benchmarks/speed_options.py --assets ../shared --out benchmarks/results/speed_options.md

Two systems: the model alone, and one with two branches as classifier-free guidance has them, x0_hat = weak + w * (model
- weak), where `weak` is the model with its attention maps replaced by the identity (perturbed-attention guidance; the
model has no condition to leave out). Every variant repaints the same images from the same noise; differences are
paired. Results are kept in --state as they come, so that a run that was cut off goes on where it was.
The assets are this project's internal measurement set and not part of the repository.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import platform
import statistics
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BASE = "model, every step"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--n", type=int, default=32, help="images, at most 32")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--mask", default="thick", help="a kind of gradpaint.masks")
    parser.add_argument("--seed", type=int, default=0, help="of masks and noise")
    parser.add_argument("--weight", type=float, default=2.0, help="w of the system with two branches")
    parser.add_argument("--rounds", type=int, default=8, help="of the timing")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--state", type=Path, default=Path("speed_options_state"), help="folder for finished parts")
    parser.add_argument("--out", type=Path, help="Markdown file")
    return parser.parse_args()


class Lab:
    """Images, masks, noise levels and the two systems. Networks run in bfloat16 autocast, but for the timing."""

    def __init__(self, args):
        import anime64
        import torch

        from gradpaint.image.files import load_image
        from gradpaint.masks import make_masks
        from gradpaint.sampling.classifier_free import ClassifierFree
        from gradpaint.sampling.sigmas import spaced_sigmas

        self.args, self.autocast = args, True
        files = sorted((args.assets / "anime64" / "dev").glob("*.png"))[: args.n]
        self.images = torch.cat([load_image(file) for file in files])
        self.masks = make_masks(args.mask, 64, 64, range(args.seed, args.seed + len(files)))
        self.sigmas = spaced_sigmas(anime64.sigmas()[:286], args.steps)  # see quality_anime64.py
        model = anime64.load()
        weak = copy.deepcopy(model)
        for module in weak.modules():
            if isinstance(module, anime64.AttentionBlock):
                module.forward = types.MethodType(_identity_attention, module)
        self.systems = {
            "one branch": self._denoiser(model),
            "two branches": ClassifierFree(self._denoiser(model), self._denoiser(weak), args.weight),
        }

    def _denoiser(self, model):
        import torch
        from torch import autocast

        def denoise(x, sigma):
            with autocast("cpu", torch.bfloat16, enabled=self.autocast):
                return model.denoise(x, sigma).float()

        return denoise


def _identity_attention(self, x):
    """anime64.AttentionBlock.forward in which every pixel attends to itself only."""
    x = self.norm(x)
    out = self.proj(self.value(x.flatten(2).transpose(1, 2)))
    return x + out.transpose(1, 2).reshape(x.shape)


def variants(system: str) -> dict:
    """Name -> GuidanceSettings, None for no guidance at all (eq. 3 alone)."""
    from gradpaint.method.settings import GuidanceSettings, GuideSchedule

    def settings(every=1, between="plain", **changes):
        return GuidanceSettings(schedule=GuideSchedule(every=every, between=between), **changes)

    shared = {"no guidance": None, BASE: settings(), "x0, every step": settings(gradient="x0")}
    if system == "two branches":
        return {
            **shared,
            "cond, every step": settings(gradient="cond"),
            "cond, every 2nd, keep": settings(2, "keep", gradient="cond"),
        }
    return {
        **shared,
        "model, every 2nd, plain": settings(2),
        "model, every 2nd, keep": settings(2, "keep"),
        "model, every 2nd, plain, strength 2": settings(2, strength=2.0),
        "model, every 3rd, keep": settings(3, "keep"),
        "model, every 5th, keep": settings(5, "keep"),
    }


def kept(lab: Lab, name: str, make):
    """make(), or what it returned when it was done before with the same arguments."""
    import torch

    changing = ("assets", "state", "out")
    signature = {key: value for key, value in sorted(vars(lab.args).items()) if key not in changing}
    file = lab.args.state / (name.replace(" ", "_").replace(",", "") + ".pt")
    if file.exists():
        stored = torch.load(file, weights_only=False)  # our own file
        if stored["signature"] == signature:
            return stored["value"]
    value = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"signature": signature, "value": value}, file)
    print(f"done: {name}", file=sys.stderr, flush=True)
    return value


def quality(lab: Lab, system: str) -> str:
    """Markdown: scores of every variant, and differences to the exact gradient at every guided step."""
    from on_tensors import compared, library_method, run_methods, tables

    runs = {}
    for name, settings in variants(system).items():
        options = {"method": "combine_image"} if settings is None else {"settings": settings}
        method = library_method(lab.systems[system], lab.sigmas, sampler="ddpm", full_noise=False, **options)
        runs.update(
            kept(
                lab,
                f"{system} {name}",
                lambda name=name, method=method: run_methods(
                    {name: method}, lab.images, lab.masks, seed=lab.args.seed, batch_size=lab.args.batch
                ),
            )
        )
    return tables(compared(runs, lab.images, lab.masks, BASE))


def step_times(lab: Lab, system: str) -> str:
    """Markdown: CPU seconds of one step of each kind over those of a plain one, in float32, by interleaved rounds."""
    import torch

    from gradpaint.method.plan import RunPlan, Step
    from gradpaint.method.settings import GuidanceSettings, GuideSchedule
    from gradpaint.sampling.evaluate import StepEvaluator
    from gradpaint.sampling.inpaint_method import InpaintMethod
    from gradpaint.sampling.run import VELevels

    y, mask, sigma = lab.images[:2], lab.masks[:2], float(lab.sigmas[lab.args.steps // 4])
    x = y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))

    def steps(settings):
        """Two steps of a run with these settings."""
        method = InpaintMethod(settings)
        plan = RunPlan(settings, y, mask, 2)
        evaluate = StepEvaluator(lab.systems[system], method, plan, y, mask)

        def make(step):
            return evaluate(x, step), method.displacement(plan, step, VELevels(), mask)

        return [lambda i=i: make(Step(i, sigma, sigma)) for i in (0, 1)]

    kinds = {"plain": steps(None)[0]}
    schedule = GuideSchedule(fraction=1.0, every=2, between="keep")
    for gradient in ("model", "cond", "x0") if system == "two branches" else ("model", "x0"):
        kinds[gradient], reused = steps(GuidanceSettings(gradient=gradient, schedule=schedule))
        kinds.setdefault("reused", reused)
    lab.autocast, times = False, {name: [] for name in kinds}
    for i in range(lab.args.rounds + 1):
        for name, step in kinds.items():
            started = time.process_time()
            step()
            if i > 0:  # the first round warms up
                times[name].append(time.process_time() - started)
    lab.autocast = True
    rows = []
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["plain"])]
        rows.append(
            f"| {name} | {statistics.median(seconds):.3f} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f}-{max(ratios):.2f} |"
        )
    head = "| step | CPU s (2 images) | over a plain step, median of pairs | range |\n| --- | --- | --- | --- |"
    return "\n".join([head, *rows])


def directions(lab: Lab, system: str) -> str:
    """Markdown: cosine between the exact gradient and each cheaper direction, at the states of an exact run."""
    import torch

    from gradpaint.evaluation.metrics import mean_estimate
    from gradpaint.method.gradient import loss_gradient, x0_gradient
    from gradpaint.method.settings import GuidanceSettings
    from gradpaint.method.terms import loss_terms
    from gradpaint.sampling.inpaint import inpaint

    denoiser, terms = lab.systems[system], loss_terms(GuidanceSettings())
    y, mask = lab.images[: lab.args.batch], lab.masks[: lab.args.batch]
    states = []

    def spy(x, sigma):
        if x.requires_grad:
            states.append((x.detach().clone(), float(sigma)))
        return denoiser(x, sigma)

    inpaint(spy, y, mask, sigmas=lab.sigmas, sampler="ddpm", full_noise=False, seed=lab.args.seed, progress=False)
    cond = ["cond"] if system == "two branches" else []
    names = ["x0", "x0 without its filter", *cond, "last step's", "last but one"]
    rows, past = [], []
    for x, sigma in states:

        def gradient(call, x=x, sigma=sigma):
            leaf = x.clone().requires_grad_(True)
            x0_hat = call(leaf, torch.tensor(sigma))
            return x0_hat.detach(), loss_gradient(leaf, x0_hat, y, mask, terms, sigma).gradient.flatten(1)

        x0_hat, exact = gradient(denoiser)
        others = {
            "x0": x0_gradient(x0_hat, y, mask, terms, b=sigma).gradient.flatten(1),
            "x0 without its filter": ((1 - mask) * (x0_hat - y)).flatten(1),
        }
        if cond:
            others["cond"] = gradient(denoiser.through_cond)[1]
        others.update(zip(names[-2:], past[::-1]))
        past.append(exact)
        cells = []
        for name in names:
            cosine = torch.nn.functional.cosine_similarity(exact, others[name]) if name in others else None
            estimate = None if cosine is None else mean_estimate(cosine)
            cells.append("" if estimate is None else f"{estimate.value:+.2f} +- {estimate.error:.2f}")
        rows.append(f"| {sigma:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(["| sigma | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|", *rows])


def main() -> None:
    args = arguments()
    os.environ["TORCH_HOME"] = str((args.assets / "torch_home").resolve())
    sys.path.insert(0, str(args.assets / "anime64"))
    import torch

    torch.set_num_threads(1)
    lab = Lab(args)
    command = " ".join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])
    parts = [
        f"# Speed options\n\nanime64, {len(lab.images)} development images, {args.mask} masks, {args.steps} ddpm "
        f"steps, of which the first half are guided, seed {args.seed}, default settings but for what is named. "
        f"Networks in bfloat16 autocast (step times in float32).\n\nCommand: `python {command}`; torch "
        f"{torch.__version__}, {platform.machine()}, CPU, 1 thread. CPU seconds are of a shared machine: compare "
        "the paired ratios.\n"
    ]
    for system in lab.systems:
        title = system if system == "one branch" else f"{system} (w = {args.weight:g})"
        times, cosines = (
            kept(lab, f"{system} {part.__name__}", functools.partial(part, lab, system))
            for part in (step_times, directions)
        )
        parts.append(
            f"## {title}\n\n{quality(lab, system)}\n\nOne step:\n\n{times}\n\nCosine to the exact gradient, "
            f"mean over {args.batch} images:\n\n{cosines}\n"
        )
    text = "\n".join(parts)
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
