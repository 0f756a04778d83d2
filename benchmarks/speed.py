"""Seconds per step and peak memory of guided sampling against plain sampling, in one process, through `comfy.sample`.

    python benchmarks/speed.py --models sd15 --pairs 9 --out benchmarks/results/speed_cpu.md
    python benchmarks/speed.py --device cuda --models sd15,sdxl --size 1024 --out benchmarks/results/speed_cuda.md

Random weights, so no downloads. The host is found at $COMFYUI_PATH, above this folder, ~/ComfyUI or ~/comfy/ComfyUI.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import bench_host
import full_size
from timing import Bench, Variant, quartiles, ratios

HEADER = [
    "model",
    "CFG",
    "sampling",
    "s per step",
    "/ plain (quartiles)",
    "/ plain, CPU time",
    "peak MiB",
    "peak / plain",
    "memory rung of the last guided step",
]
RUN_HEADER = ["model", "CFG", "whole run", "s", "/ plain (quartiles)", "/ plain, CPU time"]
PLAIN, GUIDED = "plain", "guided"
BUDGET = 0.6  # of what plain backward takes: how much memory "some blocks recomputed" is told there is


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--models", default="sd15", help=f"comma-separated, of {', '.join(full_size.NAMES)}")
    parser.add_argument("--dtype", choices=list(full_size.DTYPES), help="default: fp32 on the CPU, bf16 on CUDA")
    parser.add_argument("--size", type=int, default=256, help="pixels a side, a multiple of 64")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0], help="several make a table each")
    parser.add_argument("--pairs", type=int, default=7, help="rounds of all variants")
    parser.add_argument("--steps", type=int, default=3, help="of a run; the first is not timed. Odd")
    parser.add_argument("--run-steps", type=int, default=10, help="of the whole runs with early stop; 0: none")
    parser.add_argument("--run-pairs", type=int, default=3)
    parser.add_argument("--variants", default="", help="only those with these names, separated by semicolons")
    parser.add_argument("--offload", action="store_true", help="CUDA: once more with the weights in host memory")
    parser.add_argument("--out", type=Path, help="Markdown file")
    args = parser.parse_args(argv)
    args.models = [name.strip() for name in args.models.split(",")]
    unknown = [name for name in args.models if name not in full_size.NAMES]
    if unknown:
        parser.error(f"--models: {', '.join(unknown)} unknown; allowed: {', '.join(full_size.NAMES)}")
    if args.size < 64 or args.size % 64:
        parser.error(f"--size is {args.size}, but must be a positive multiple of 64")
    if args.steps < 3 or args.steps % 2 == 0:
        parser.error(f"--steps is {args.steps}, but must be odd and at least 3 (an even number of timed steps)")
    if args.offload and args.device == "cpu":
        parser.error("--offload needs --device cuda: on the CPU there is nowhere to offload from")
    if args.pairs < 1 or args.run_pairs < 1:
        parser.error("--pairs and --run-pairs must be at least 1")
    args.dtype = args.dtype or ("bf16" if args.device == "cuda" else "fp32")
    return args


def main(argv=None) -> None:
    args = arguments(argv)
    pack = bench_host.load(args.device)
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("--device cuda, but this PyTorch sees no CUDA device")
    bench_host.save(report(args, pack), args.out)


def report(args: argparse.Namespace, pack) -> str:
    """The whole result as Markdown."""
    rows, runs = [], []
    for name in args.models:
        model = full_size.build(name, args.size, args.dtype, args.device)
        print(f"{name}: {model.parameters / 1e6:.1f} million parameters", file=sys.stderr)
        for cfg in args.cfg:
            for offloaded in [False, True] if args.offload else [False]:
                with _no_vram() if offloaded else contextlib.nullcontext():
                    rows += steps_table(args, pack, model, cfg, offloaded)
            if args.run_steps:
                runs += runs_table(args, pack, model, cfg)
        del model
        gc.collect()
    parts = [_title(args), bench_host.table(HEADER, rows)]
    if runs:
        parts += [
            f"Whole runs of {args.run_steps} steps, everything included, guided for the first half:",
            bench_host.table(RUN_HEADER, runs),
        ]
    return "\n\n".join([*parts, bench_host.footer(args.device)])


def _title(args: argparse.Namespace) -> str:
    memory = (
        "peak of allocated CUDA memory, weights included"
        if args.device == "cuda"
        else "growth of the process's resident memory during the run, so without the weights"
    )
    return (
        f"# Guided against plain sampling, {args.device}, {args.dtype}, {args.size}x{args.size}, batch 1\n\n"
        f"Euler, random weights; models without -tiny have the published sizes. Medians of {args.pairs} "
        f"interleaved rounds in one process; ratios are taken within each round. Runs of {args.steps} steps, the "
        f"first not timed. Memory: {memory}."
    )


def variants(pack, cfg: float) -> list[Variant]:
    """Plain sampling, then every way to guide it. The timed steps of each run are of the kind that it names."""
    guide = lambda **changes: pack.settings.GuideSchedule(**{"fraction": 1.0, **changes})
    guided = _guided(pack, GUIDED, "fastest")
    found = [
        Variant(PLAIN, lambda patcher, record: patcher),
        _guided(pack, "unguided step of a guided run", "fastest", schedule=guide(mode="steps", steps=1)),
        guided,
        _guided(pack, "guided, memory auto", "auto"),
        _guided(pack, "guided, some blocks recomputed", "auto", around=lambda: _budget(pack, guided)),
        _guided(pack, "guided, all blocks recomputed", "low memory"),
        _guided(pack, "guided, inputs in host memory", "lowest memory"),
        _guided(pack, "every 2nd step, direction kept", "fastest", schedule=guide(every=2, between="keep")),
        _guided(pack, "gradient in x0_hat only", "fastest", gradient="x0"),
    ]
    if cfg != 1:
        found.append(_guided(pack, "gradient through the positive branch", "fastest", gradient="cond"))
    return found


def _guided(
    pack, name: str, memory: str, around: Callable = contextlib.nullcontext, schedule=None, **settings
) -> Variant:
    schedule = schedule or pack.settings.GuideSchedule.full()
    made = pack.settings.GuidanceSettings(schedule=schedule, **settings)

    def prepare(patcher, record):
        return pack.guidance.apply_gradpaint(patcher, made, record, pack.settings.MemorySettings(mode=memory))

    return Variant(name, prepare, around)


@contextlib.contextmanager
def _budget(pack, fastest: Variant):
    """The pack is told that less memory is free than the guided run took that was made before."""
    peak = max((run.record.memory.peak_bytes or 0 for run in fastest.runs), default=0) or 2**30
    original = pack.device_memory.free_memory
    pack.device_memory.free_memory = lambda model, device: int(BUDGET * peak)
    try:
        yield
    finally:
        pack.device_memory.free_memory = original


@contextlib.contextmanager
def _no_vram():
    """The host keeps the weights in host memory and streams them at each use, as with --novram."""
    import comfy.model_management as management

    before = management.vram_state
    management.unload_all_models()
    management.vram_state = management.VRAMState.NO_VRAM
    try:
        yield
    finally:
        management.vram_state = before
        management.unload_all_models()


def steps_table(args, pack, model, cfg: float, offloaded: bool) -> list[list[str]]:
    """Rows: each variant's time per step and memory."""
    bench = Bench(model, args.steps, cfg, args.device)
    chosen = _chosen(variants(pack, cfg), args.variants)
    bench.rounds(chosen, args.pairs, progress=lambda line: print(line, file=sys.stderr))
    plain = chosen[0]
    note = ", weights offloaded" if offloaded else ""
    return [
        [
            model.name,
            f"{cfg:g}",
            variant.name + note,
            f"{quartiles([run.step for run in variant.runs])[0]:.4g}",
            *_ratio_cells(args, variant, plain),
            *_memory_cells(variant, plain),
        ]
        for variant in chosen
    ]


def _chosen(all_variants: list[Variant], names: str) -> list[Variant]:
    wanted = {name.strip() for name in names.split(";") if name.strip()}
    unknown = wanted - {variant.name for variant in all_variants}
    if unknown:
        raise SystemExit(
            f"--variants: no {', '.join(map(repr, unknown))}; there are: "
            f"{'; '.join(variant.name for variant in all_variants)}"
        )
    return [v for v in all_variants if v.name == PLAIN or not wanted or v.name in wanted]


def runs_table(args, pack, model, cfg: float) -> list[list[str]]:
    """Rows: whole runs, plain, with guidance in the first half, and in all of it."""
    bench = Bench(model, args.run_steps, cfg, args.device)
    half = pack.settings.GuideSchedule.fast()
    chosen = [
        Variant(PLAIN, lambda patcher, record: patcher),
        _guided(pack, "guided, early stop at 50%", "fastest", schedule=half),
        _guided(pack, "guided, early stop at 50%, memory auto", "auto", schedule=half),
    ]
    bench.rounds(chosen, args.run_pairs, warm_up=False, progress=lambda line: print(line, file=sys.stderr))
    return [
        [
            model.name,
            f"{cfg:g}",
            variant.name,
            f"{quartiles([run.total for run in variant.runs])[0]:.4g}",
            *_ratio_cells(args, variant, chosen[0], "total"),
        ]
        for variant in chosen
    ]


def _ratio_cells(args, variant: Variant, plain: Variant, key: str = "step") -> list[str]:
    middle, low, high = quartiles(ratios(variant, plain, key))
    cpu = quartiles(ratios(variant, plain, "total_cpu" if key == "total" else "cpu"))[0]
    return [f"{middle:.2f} ({low:.2f}-{high:.2f})", f"{cpu:.2f}" if args.device == "cpu" else "-"]


def _memory_cells(variant: Variant, plain: Variant) -> list[str]:
    rungs = variant.runs[-1].record.memory.rungs if variant.runs[-1].record is not None else []
    rung = rungs[-1] if rungs else "-"
    peaks = [[run.peak for run in v.runs if run.peak is not None] for v in (variant, plain)]
    if not all(peaks):
        return ["unknown", "-", rung]
    of, to = (quartiles(values)[0] for values in peaks)
    return [f"{of / 2**20:.0f}", f"{of / to:.2f}" if to else "-", rung]


if __name__ == "__main__":
    main()
