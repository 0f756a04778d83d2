#!/usr/bin/env python3
"""What the pack adds to the start of ComfyUI: the server started with and without it, in turn, several times.

    python benchmarks/import_time.py [--rounds 7] [--host ~/ComfyUI] [--out FILE]

Printed, and written to benchmarks/results/import_time.md: medians of the seconds from the start of the process until
the server answers, of the processor time that it has taken by then (which other programs disturb less), and of the
pack's own time as ComfyUI logs it. The first round warms the disk cache and is not counted.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "host" / "support"), str(ROOT / "tests" / "project")]

import in_host  # noqa: E402
from packing import packed_files  # noqa: E402
from server_process import Server  # noqa: E402

LIMIT = 0.5  # seconds: what the pack may add


def cpu_seconds(pid: int) -> float:
    """Processor time of a running process, all threads (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(host: Path, pack: Path | None, folder: Path) -> dict[str, float]:
    """One start of the server: seconds until it answers, its processor time, and the pack's own import as logged."""
    base = folder / "base"
    began = time.perf_counter()
    server = Server(host, base, pack=pack)
    try:
        server.wait(poll=0.02)
        times = {"start": time.perf_counter() - began, "processor": cpu_seconds(server.process.pid)}
    finally:
        server.stop()
    logged = re.search(r"([\d.]+) seconds[^\n]*custom_nodes/gradpaint", server.log())
    if (logged is None) != (pack is None):
        raise RuntimeError(f"the pack {'is missing' if pack else 'was loaded'}:\n{server.log()[-3000:]}")
    shutil.rmtree(base)
    return {**times, "logged": float(logged[1]) if logged else 0.0}


def measure(host: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """{"with": runs, "without": runs}, from a copy of the pack as it is installed."""
    runs = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as name:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: compiled once, in the round not counted
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(name) / "pycache")
        pack = Path(name) / "gradpaint"
        for file in packed_files():
            (pack / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, pack / file)
        for turn in range(rounds + 1):
            for kind in runs:
                run = start(host, pack if kind == "with" else None, Path(name))
                print(
                    f"round {turn} {kind:7}: " + ", ".join(f"{key} {value:.2f} s" for key, value in run.items()),
                    flush=True,
                )
                if turn:
                    runs[kind].append(run)
    return runs


def report(runs: dict, host: Path) -> str:
    """The table, Markdown."""

    def median(kind: str, key: str) -> float:
        return statistics.median(run[key] for run in runs[kind])

    def spread(key: str) -> str:
        differences = [a[key] - b[key] for a, b in zip(runs["with"], runs["without"])]
        return f"{statistics.median(differences):+.2f} ({min(differences):+.2f} to {max(differences):+.2f})"

    version = re.search(r'"(.*?)"', (host / "comfyui_version.py").read_text())[1]
    pairs, load = len(runs["with"]), os.getloadavg()[0]
    lines = [
        "# What the pack adds to the start of ComfyUI",
        "",
        f"`python benchmarks/import_time.py`: ComfyUI {version}, CPU, {pairs} pairs of starts in turn, after one "
        f"that is not counted; {os.cpu_count()} processor cores, load {load:.1f} at the end.",
        "",
        "| median seconds | without | with | difference in pairs (least to most) |",
        "|---|---|---|---|",
    ]
    for key, title in (("start", "until the server answers"), ("processor", "processor time by then")):
        lines.append(f"| {title} | {median('without', key):.2f} | {median('with', key):.2f} | {spread(key)} |")
    lines.append(f"| the pack's import, as ComfyUI logs it | | {median('with', 'logged'):.1f} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--host", type=Path, default=None, help="ComfyUI; else looked for as the tests do")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "import_time.md")
    args = parser.parse_args()
    if args.rounds < 1:
        sys.exit(f"--rounds {args.rounds}: at least 1")
    host = args.host.expanduser().resolve() if args.host else in_host.find_host()
    if host is None:
        sys.exit("no ComfyUI found; set COMFYUI_PATH or --host")
    runs = measure(host, args.rounds)
    text = report(runs, host)
    print(text)
    args.out.write_text(text)
    added = statistics.median(a["processor"] - b["processor"] for a, b in zip(runs["with"], runs["without"]))
    sys.exit(0 if added < LIMIT else f"the pack adds {added:.2f} s of processor time, more than {LIMIT} s")


if __name__ == "__main__":
    main()
