#!/usr/bin/env python3
"""Do small runs still give the same bits? For changes to the code that are to change no result.

    python scripts/run_hashes.py [--only PATTERN]             check: 0 if all are equal, 1 if not
    python scripts/run_hashes.py --write [--only PATTERN]     store the hashes in scripts/run_hashes.json
    python scripts/run_hashes.py --values [--only PATTERN]    print a hash of each named number of the runs' records

PATTERN: part of a name, or one with * and ?, e.g. "host/door*". Each run has two hashes: of its pictures, the exact
bytes of its results, and of its record, the numbers of `record_values`. Bits depend on torch, the host and the machine:
write on the machine that will check, before the change. Needs a ComfyUI, found as the tests find it. How the runs are
made: `hashed_runs.py`; which there are: `hashed_table.py`.
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

from hashed_table import TABLE

STORED = Path(__file__).with_suffix(".json")


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

    import hashed_modules
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
        "host": ".".join(map(str, hashed_modules.in_host.host_version(hashed_modules.HOST_PATH))),
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
