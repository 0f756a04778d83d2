"""Every model family: errors of the gradient, cost of guidance, known region, on tiny random models of the host's code.

    python benchmarks/families.py --out benchmarks/results/families.md

The models are those of tests/host/zoo*.py. The host is found at $COMFYUI_PATH, above this folder, ~/ComfyUI or
~/comfy/ComfyUI.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import bench_host
from timing import quartiles

HEADER = [
    "family",
    "host class",
    "prediction",
    "error against plain autograd",
    "against finite differences",
    "guided / plain",
    "known region off by",
    "3 Euler steps",
]
KINDS = {
    "EPS": "eps",
    "V_PREDICTION": "v",
    "V_PREDICTION_EDM": "v, EDM",
    "EDM": "EDM",
    "FLOW": "flow",
    "FLUX": "flow",
    "FLOW_COSMOS": "flow",
    "STABLE_CASCADE": "eps, Cascade",
    "V_PREDICTION_CONTINUOUS": "v, continuous",
    "V_PREDICTION_DDPM": "v",
    "IMG_TO_IMG": "image to image",
    "IMG_TO_IMG_FLOW": "image to image, flow",
}
STEPS = 3


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs of runs for guided / plain")
    parser.add_argument("--families", default="", help="comma-separated; default all")
    parser.add_argument("--out", type=Path, help="Markdown file")
    args = parser.parse_args(argv)
    if args.pairs < 1:
        parser.error(f"--pairs is {args.pairs}, but must be at least 1")
    pack = bench_host.load()
    bench_host.save(report(args, pack), args.out)


def report(args: argparse.Namespace, pack) -> str:
    """The whole result as Markdown."""
    names = [name.strip() for name in args.families.split(",") if name.strip()] or families()
    unknown = sorted(set(names) - set(families()))
    if unknown:
        raise SystemExit(f"--families: {', '.join(unknown)} unknown; there are: {', '.join(families())}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows.append(row(name, pack, Path(folder), args.pairs))
            print(" | ".join(rows[-1]), file=sys.stderr)
    failed = [cells[0] for cells in rows if cells[-1] != "ok"]
    count = f"{len(rows)} families, {len(rows) - len(failed)} work" + (f"; not: {', '.join(failed)}" if failed else "")
    return "\n\n".join(
        ["# Model families", _notes(args, count), bench_host.table(HEADER, rows), bench_host.footer("cpu")]
    )


def _notes(args: argparse.Namespace, count: str) -> str:
    return (
        f"{count}. Tiny random models built by the host's own classes, float32. Relative errors of the gradient in "
        "the input: against plain autograd on an ordinary copy of the network, and against central differences in "
        "float64 (cosmos: float32). guided / plain: seconds of a sampling run with every step guided over those of "
        f"a plain one, median of {args.pairs} interleaved pairs; at these sizes it is mostly overhead, see "
        "speed_*.md for models of real size. Known region: largest difference to the given latent, in the model's "
        "units."
    )


def families() -> list[str]:
    import zoo
    import zoo_more

    return [*zoo.FAMILIES, *zoo_more.FAMILIES]


class Subject:
    """A family's model, with what its module of the zoo knows about it."""

    def __init__(self, name: str, pack, folder: Path):
        import zoo
        import zoo_more

        self.name, self.more = name, name in zoo_more.FAMILIES
        self.host_class = zoo_more.FAMILIES[name].config if self.more else "(GradPaint's own)"
        module = zoo_more if self.more else zoo
        self.patcher = zoo_more.build(name) if self.more else zoo.build(name, pack.package, folder)
        self.shapes, self.conditioning = module.SHAPES, module.conditioning
        self.in_place, self.double = name in zoo_more.WRITES_IN_PLACE, name not in zoo_more.SINGLE_PRECISION
        self.step, self.starts_empty = zoo_more.STEP.get(name), name in zoo_more.STARTS_EMPTY
        self.batch = zoo_more.FAMILIES[name].batch if self.more else self.shapes[name][0]
        if not self.more and name != "guided_diffusion":
            self.host_class = type(self.patcher.model.model_config).__name__


def row(name: str, pack, folder: Path, pairs: int) -> list[str]:
    """One line of the table; a family that fails has the message in its last cell."""
    cells = [name] + ["-"] * (len(HEADER) - 1)
    try:
        subject = Subject(name, pack, folder)
        kind = subject.patcher.model.model_type.name
        cells[1], cells[2] = subject.host_class, KINDS.get(kind, kind)
        autograd, differences = gradient_errors(subject, pack)
        cells[3], cells[4] = f"{autograd:.1e}", f"{differences:.1e}"
        ratio, known = sampling(subject, pack, pairs)
        cells[5], cells[6], cells[7] = f"{ratio:.2f}", f"{known:.1e}", "ok"
    except Exception as error:  # a table with the message is what is asked for
        cells[-1] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return cells


def gradient_errors(subject: Subject, pack) -> tuple[float, float]:
    """(against plain autograd, against finite differences), relative."""
    import comfy.model_management
    import torch
    import twins

    model, autograd, shape = subject.patcher.model, pack.autograd, subject.shapes[subject.name]
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([subject.patcher])
    mask = twins.hole(shape) if subject.more else None
    x, sigma, conds = twins.arguments(model, shape, subject.conditioning(subject.name), subject.batch, mask=mask)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    twin = twins.ordinary_copy(model)
    with autograd.differentiable([model]), autograd.grad_enabled(subject.in_place):
        _, grad = twins.gradient(autograd, model, x, sigma, conds, weight)
    with autograd.grad_enabled(subject.in_place):
        _, expected = twins.gradient(autograd, twin, x, sigma, conds, weight)
    error = twins.relative_error(grad, expected)
    return error, twins.finite_difference_error(
        autograd, twin, grad, x, sigma, conds, weight, step=subject.step, double=subject.double
    )


def sampling(subject: Subject, pack, pairs: int) -> tuple[float, float]:
    """(guided / plain, largest error in the known region) of runs through the host's samplers."""
    import sampling as host
    import torch

    name, patcher = subject.name, subject.patcher
    noise, latent, mask = host.problem(name, batch=subject.batch, shapes=subject.shapes, empty=subject.starts_empty)
    sigmas = host.schedule(patcher, "euler", STEPS)
    settings = pack.settings.GuidanceSettings(schedule=pack.settings.GuideSchedule.full())
    records: list = []
    guided = pack.guidance.apply_gradpaint(patcher, settings, records.append)

    def seconds(model) -> tuple[float, torch.Tensor]:
        start = time.perf_counter()
        out = host.sample(model, name, "euler", sigmas, noise, latent, mask, conditioning=subject.conditioning)
        return time.perf_counter() - start, out

    seconds(patcher)
    _, out = seconds(guided)
    (record,) = records
    if not bool(out.isfinite().all()) or (record.backwards, record.skipped) != (STEPS, 0):
        raise RuntimeError(
            f"{record.backwards} of {STEPS} steps guided, {record.skipped} displacements left out, "
            f"result {'finite' if bool(out.isfinite().all()) else 'not finite'}"
        )
    error = (out - host.in_model_units(patcher, latent))[host.known_part(mask, latent)].abs().max().item()
    ratios = [seconds(guided)[0] / seconds(patcher)[0] for _ in range(pairs)]
    return quartiles(ratios)[0], error


if __name__ == "__main__":
    main()
