#!/usr/bin/env python3
"""Do small runs still give the same bits? For changes to the code that are to change no result.

    python scripts/run_hashes.py [--only PATTERN]             check: 0 if all are equal, 1 if not
    python scripts/run_hashes.py --write [--only PATTERN]     store the hashes in scripts/run_hashes.json
    python scripts/run_hashes.py --values [--only PATTERN]    print a hash of each named number of the runs' records

PATTERN: part of a name, or one with * and ?, e.g. "host/door*". Each run has two hashes: of its pictures, the exact
bytes of its results, and of its record, the numbers of `record_values`. Bits depend on torch, the host and the machine:
write on the machine that will check, before the change. Needs a ComfyUI, found as the tests find it. How the runs are
made: `hashed_runs.py`. The table is below.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import logging
import sys
import warnings
from pathlib import Path

STORED = Path(__file__).with_suffix(".json")

FULL = dict(fraction=1.0)
EVERY_2, KEEP_2 = dict(fraction=1.0, every=2), dict(fraction=1.0, every=2, between="keep")
EARLY = dict(mode="adaptive", patience=0.0, minimum=0.0, tolerance=0.4)  # soon, so that it does stop

LIBRARY = {  # arguments of hashed_runs.library
    "method/combine_image ddim": dict(method="combine_image"),
    "method/combine_noisy ddpm": dict(method="combine_noisy", sampler="ddpm"),
    "method/repaint ddpm": dict(method="repaint", sampler="ddpm", options=dict(resamplings=3, jump_length=2)),
    "method/mcg ddim": dict(method="mcg", options=dict(step=0.5)),
    "method/dps ddpm": dict(method="dps", sampler="ddpm"),
    "method/gradpaint ddim": {},
    "method/gradpaint ddpm": dict(sampler="ddpm"),
    "method/gradpaint_fast ddpm": dict(method="gradpaint_fast", sampler="ddpm", steps=10),
    "method/gradpaint_full ddim": dict(method="gradpaint_full"),
    "mode/steps": dict(schedule=dict(mode="steps", steps=3), strength=2.0),
    "mode/adaptive": dict(schedule=EARLY, steps=12, sampler="ddpm"),
    "mode/adaptive every 2 keep": dict(schedule=EARLY | KEEP_2, steps=24),
    "mode/every 2 plain": dict(schedule=EVERY_2),
    "mode/every 3 keep": dict(schedule=KEEP_2 | dict(every=3), sampler="ddpm"),
    "gradient/model, two branches": dict(denoiser="classifier free"),
    "gradient/cond, two branches": dict(denoiser="classifier free", gradient="cond"),
    "gradient/x0": dict(gradient="x0", schedule=EARLY, steps=12, alignment=dict(lambda_al=0.5)),
    "loss/alpha, l2": dict(alpha=2.0, normalization="l2"),
    "loss/alpha, alignment as in the paper": dict(alpha=0.05, alignment=dict(lambda_al=400.0, softness=0.0)),
    "loss/decoded view": dict(denoiser="smooth", latent=True, alignment=dict(lambda_al=5.0, border_width=2)),
    "record/keep_x0, keep_gradients": dict(
        schedule=FULL, alignment=dict(lambda_al=0.5), options=dict(keep_x0=True, keep_gradients=[0, 2, 5])
    ),
    "record/nudges left out": dict(denoiser="broken"),
    "mask/soft": dict(mask="soft"),
    "mask/one for each": dict(mask="each", schedule=EARLY, steps=12),
    "start/given noise, no clip": dict(noise=4, options=dict(clip=None, full_noise=False)),
}

HOST = {  # arguments of hashed_runs.host
    **{
        f"family/{name}": dict(family=name, cfg=2.0, steps=4, schedule=FULL)
        for name in ("sd15", "sdxl", "sd35", "flux", "qwen_image", "z_image", "lumina2", "wan21", "ltxav")
    },
    "family/guided_diffusion": dict(family="guided_diffusion", steps=4, schedule=FULL),
    **{
        f"sampler/{name}": dict(sampler=name)
        for name in (
            "euler_ancestral",
            "dpmpp_2m",
            "heun",
            "ddim",
            "ddpm",
            "uni_pc",
            "dpmpp_sde",
            "lcm",
            "dpm_adaptive",
            "dpm_fast",
            "sa_solver",
            "sa_solver_pece",
            "dpmpp_2m_sde",
            "euler_cfg_pp",
        )
    },
    "sampler/uni_pc, flux": dict(family="flux", sampler="uni_pc", schedule=KEEP_2),
    "sampler/uni_pc, two parts": dict(family="flux", sampler="uni_pc", door="advanced", schedule=KEEP_2, cut=3),
    "sampler/dpm_adaptive, every 2 keep": dict(sampler="dpm_adaptive", schedule=KEEP_2),
    "sampler/leaves its plan": dict(door="stray", options=dict(copies=False), schedule=KEEP_2),
    "sampler/hands copies on": dict(door="stray", options=dict(copies=True), schedule=KEEP_2),
    "door/KSampler, denoise 0.5": dict(family="flux", options=dict(denoise=0.5)),
    "door/KSampler (Advanced), two parts": dict(family="flux", door="advanced"),
    "door/KSampler (Advanced), steps 1 to 4": dict(
        family="flux", door="advanced_window", options=dict(start_at_step=1, end_at_step=4)
    ),
    "door/Apply, KSampler": dict(family="flux", door="applied"),
    "door/Apply, KSampler (Advanced) twice": dict(family="flux", door="applied_advanced"),
    "door/Apply, SplitSigmas": dict(door="split_model", cut=3, schedule=dict(mode="steps", steps=5)),
    "door/Sampler, SamplerCustom": dict(family="flux", door="custom"),
    "door/Sampler, SamplerCustomAdvanced": dict(door="custom_advanced", cfg=2.0, sampler="dpmpp_2m"),
    "door/Sampler, SplitSigmas": dict(family="flux", door="split", cut=3, schedule=KEEP_2 | dict(mode="steps")),
    **{
        f"method/{name}": dict(door="method", sampler="euler_ancestral", options=dict(name=name))
        for name in ("combine_image", "combine_noisy", "repaint", "mcg", "dps", "gradpaint_fast")
    },
    "method/repaint, flux": dict(family="flux", door="method", options=dict(name="repaint")),
    "method/combine_noisy, noise left": dict(
        family="flux",
        door="method",
        options=dict(name="combine_noisy", end_at_step=3, return_with_leftover_noise="enable"),
    ),
    "method/mcg, soft mask": dict(family="guided_diffusion", door="method", mask="ramp", options=dict(name="mcg")),
    "mode/steps": dict(schedule=dict(mode="steps", steps=2), strength=2.0),
    "mode/adaptive": dict(family="bundled", steps=12, sampler="ddpm", schedule=EARLY),
    "mode/adaptive, uni_pc": dict(family="bundled", steps=12, sampler="uni_pc", schedule=EARLY),
    "mode/adaptive, batch": dict(family="bundled", steps=12, batch=2, schedule=EARLY),
    "mode/every 2 plain": dict(schedule=EVERY_2),
    "mode/every 2 keep": dict(schedule=KEEP_2, sampler="dpmpp_2m"),
    "mode/adaptive every 2 keep, two parts": dict(
        family="bundled", door="advanced", steps=12, scheduler="karras", cut=3, schedule=EARLY | KEEP_2
    ),
    "mode/adaptive, two parts": dict(family="bundled", door="advanced", steps=12, cut=3, schedule=EARLY, gradient="x0"),
    "gradient/cond": dict(cfg=4.0, gradient="cond"),
    "gradient/x0": dict(family="flux", cfg=4.0, gradient="x0"),
    "gradient/x0, nested latent": dict(family="ltxav", steps=3, gradient="x0"),
    "loss/alpha, l2": dict(alpha=2.0, normalization="l2"),
    "loss/strength 0": dict(strength=0.0),
    "loss/alignment, pixels": dict(family="guided_diffusion", alignment=dict(lambda_al=0.5)),
    "loss/alignment, latent": dict(
        family="flux", door="advanced", batch=2, mask="each", alignment=dict(lambda_al=0.5, space="latent")
    ),
    "loss/alignment, rgb": dict(alignment=dict(lambda_al=2.0, border_width=2, space="rgb")),
    "mask/soft": dict(mask="ramp"),
    "mask/one for each": dict(batch=2, mask="each", sampler="euler_ancestral"),
    "mask/Differential Diffusion": dict(family="flux", mask="ramp", differential=1.0, schedule=FULL),
    "mask/Differential Diffusion, two parts": dict(door="advanced", mask="ramp", differential=0.5),
    "record/pictures": dict(
        family="flux",
        schedule=FULL,
        alignment=dict(lambda_al=0.5, space="latent"),
        options=dict(keep_record="pictures"),
    ),
    "record/pictures, adaptive": dict(family="bundled", steps=12, schedule=EARLY, options=dict(keep_record="pictures")),
    "memory/low": dict(family="flux", memory=dict(mode="low memory")),
    "memory/lowest": dict(cfg=2.0, memory=dict(mode="lowest memory")),
    "memory/too little once": dict(family="flux", schedule=FULL, failures=1),
    "memory/too little for gradients": dict(failures=1, memory=dict(mode="fastest", allow_without_gradient=True)),
}

TABLE = {
    f"{place}/{name}": (place, given)
    for place, table in (("library", LIBRARY), ("host", HOST))
    for name, given in table.items()
}


# ---- hashes


def record_values(record) -> dict:
    """What a record says that depends on no clock and no address. The names stay as they are, whatever becomes of the
    attributes: they are hashed. record: an InpaintResult of the library or a RunRecord of the host."""
    import torch

    stop = record.stop
    maps_of = lambda maps: [maps.get("mse"), maps.get("alignment")] if maps else None
    missing = lambda step: torch.full((len(record.image),), float("nan"))  # where no gradient is taken
    term = lambda step, name: step.losses[name] if step.losses else missing(step)
    values = {
        "evaluations": record.evaluations,
        "backwards": record.backwards,
        "skipped_nudges": record.skipped,
        "stop": [stop.step, stop.reason, stop.saved, stop.samples],
    }
    if hasattr(record, "image"):
        steps = record.record
        return values | {
            "steps": len(steps),
            "step": [s.step for s in steps],
            "sigma": [s.sigma for s in steps],
            "guided": [s.guided for s in steps],
            "kept": [s.reused for s in steps],
            "total": [term(s, "total") for s in steps],
            "mse": [term(s, "mse") for s in steps],
            "alignment": [term(s, "alignment") for s in steps],
            "grad_rms": [missing(s) if s.gradient_rms is None else s.gradient_rms for s in steps],
            "x0_hat": [s.x0_hat for s in steps],
            "maps": [maps_of(s.maps) for s in steps],
        }
    return values | {
        "steps": record.steps,
        "guided_sigmas": [s.sigma for s in record.guided],
        "kept_sigmas": [s.sigma for s in record.reused],
        "guided_steps": [s.step for s in record.guided],
        "sigmas": {s.step: s.sigma for s in record.history},
        "total": record.losses("total"),
        "mse": record.losses("mse"),
        "alignment": record.losses("alignment"),
        "grad_rms": [s.gradient_rms for s in record.guided],
        "known_error": record.known_error,
        "contrast": record.contrast,
        "mask": record.mask,
        "x0_hat": {s.step: s.x0_hat for s in record.history if s.x0_hat is not None},
        "maps": {s.step: maps_of(s.maps) for s in record.history if s.maps},
        "kinds": {"kept" if kind == "reused" else kind: len(each) for kind, each in record.step_seconds.items()},
        "memory": [record.memory.rungs, record.memory.repeats],
    }


def canonical(value) -> bytes:
    """The same bytes for equal values only; all NaN are one."""
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        if value.is_floating_point():
            value = value.where(~value.isnan(), float("nan"))
        return f"{value.dtype}{tuple(value.shape)}".encode() + value.reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return b"{" + b",".join(canonical(key) + b":" + canonical(value[key]) for key in sorted(value)) + b"}"
    if isinstance(value, (list, tuple)):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if not (value is None or isinstance(value, (bool, int, float, str))):
        raise TypeError(f"no canonical form is known for a {type(value).__name__}")
    return (value.hex() if isinstance(value, float) else repr(value)).encode()


def short_hash(value) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()[:16]


def result_of(name: str) -> tuple[list, list[dict]]:
    """(tensors, values of the records) of a run."""
    import hashed_runs
    import torch

    place, given = TABLE[name]
    torch.manual_seed(0)
    tensors, records = getattr(hashed_runs, place)(**given)
    return tensors, [record_values(record) for record in records]


def environment() -> dict:
    """What the bits depend on beside the code."""
    from importlib.metadata import version

    import hashed_runs
    import torch

    cpus = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cpus.read_text().splitlines() if line.startswith("model name")]
        if cpus.exists()
        else []
    )
    return {
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "comfy_kitchen": version("comfy_kitchen"),
        "host": ".".join(map(str, hashed_runs.in_host.host_version(hashed_runs.HOST_PATH))),
        "cpu": f"{next(iter(names), 'unknown')}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
    }


# ---- the command


def made(name: str, print_values: bool) -> dict:
    """Both hashes of a run."""
    tensors, records = result_of(name)
    for i, values in enumerate(records if print_values else []):
        for key, value in values.items():
            print(f"{name}: record {i}: {key} {short_hash(value)}")
    return {"picture": short_hash(tensors), "record": short_hash(records)}


def difference(found: dict | str, stored: dict | None) -> str | None:
    """What is to be said of a run; found: its hashes, or why it failed."""
    if isinstance(found, str):
        return f"failed: {found}"
    if stored is None:
        return "not stored"
    return "; ".join(f"{part} was {stored[part]}, is {found[part]}" for part in found if found[part] != stored[part])


def write(old: dict | None, here: dict, found: dict) -> None:
    """found: the hashes of all runs, or of some, and then the others stay."""
    runs = {**(old["runs"] if old else {}), **found}
    data = {"environment": here, "runs": {name: runs[name] for name in TABLE if name in runs}}
    STORED.write_text(json.dumps(data, indent=1) + "\n")
    print(f"{len(found)} of {len(data['runs'])} written")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the hashes")
    parser.add_argument("--values", action="store_true", help="print a hash of each value of the records too")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only runs with this in their names")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # of runs that are short of memory on purpose
    here = environment()
    old = json.loads(STORED.read_text()) if STORED.exists() else None
    stored = old["runs"] if old else {}
    changed = [
        f"{key} was {was}, is {here.get(key)}"
        for key, was in (old["environment"] if old else {}).items()
        if here.get(key) != was
    ]
    if changed and given.write and given.only:
        sys.exit(f"not written, for the other runs are of another environment: {'; '.join(changed)}")
    if changed:
        print(f"another environment than the stored one, so bits may differ: {'; '.join(changed)}")
    found, told = {}, 0
    names = [name for name in (*TABLE, *stored) if fnmatch.fnmatchcase(name, f"*{given.only}*")]
    for name in dict.fromkeys(names):
        try:
            found[name] = made(name, given.values) if name in TABLE else "it is no longer in the table"
        except Exception as error:  # the others are still of interest
            found[name] = f"{type(error).__name__}: {error}"
        line = difference(found[name], found[name] if given.write else stored.get(name))
        if line:
            told += 1
            print(f"{name}: {line}", flush=True)
    if given.write and not told:
        write(old if given.only else None, here, found)
    elif given.write:
        print("not written")
    else:
        print(f"{len(found) - told} of {len(found)} equal")
    return int(told > 0 or not found)


if __name__ == "__main__":
    sys.exit(main())
