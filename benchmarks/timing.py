"""Times sampling runs through the host's own `comfy.sample`, by interleaved rounds in one process.

On a shared machine single times mean little. A round runs every variant once, plain sampling among them, and a ratio
is taken within each round: what slows the machine for a while slows both.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass
class Run:
    """One sampling run. step: mean seconds of a step, the first one left out; cpu: the same in CPU seconds of the
    process; total, total_cpu: those of everything; peak: bytes, see PeakMemory, None where unknown;
    record: a guided run's."""

    step: float
    cpu: float
    total: float
    total_cpu: float
    peak: int | None
    record: object = None


@dataclass
class Variant:
    """A way to run a model: `prepare` takes the plain MODEL and a function for the run's record, returns a MODEL.

    around: makes a context manager that each run is done in.
    """

    name: str
    prepare: Callable
    around: Callable = contextlib.nullcontext
    runs: list[Run] = field(default_factory=list)


class Bench:
    """Samples one model of `full_size` with euler; `steps` per run, of which the first is not timed."""

    def __init__(self, model, steps: int, cfg: float = 1.0, device: str = "cpu"):
        import comfy.samplers

        self.model, self.cfg, self.device = model, cfg, device
        self.sampler = comfy.samplers.sampler_object("euler")
        with torch.inference_mode():
            self.sigmas = comfy.samplers.KSampler(
                model.patcher, steps=steps, device=device, sampler="euler", scheduler="normal"
            ).sigmas
        shape = model.latent.shape
        self.noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        self.mask = torch.zeros(1, 1, *shape[-2:])
        self.mask[..., shape[-2] // 4 : shape[-2] * 3 // 4, shape[-1] // 4 : shape[-1] * 3 // 4] = 1

    def run(self, variant: Variant) -> Run:
        records: list = []
        patcher = variant.prepare(self.model.patcher, records.append)
        walls, cpus = [], []

        def callback(*_):
            self._wait()
            walls.append(time.perf_counter())
            cpus.append(time.process_time())

        gc.collect()
        memory = PeakMemory(self.device)
        with variant.around():
            start, start_cpu = time.perf_counter(), time.process_time()
            samples = self._sample(patcher, callback)
            self._wait()
            total, total_cpu = time.perf_counter() - start, time.process_time() - start_cpu
        if not bool(samples.isfinite().all()):
            raise RuntimeError(f"{self.model.name}, {variant.name}: the result is not finite")
        count = max(len(walls) - 1, 1)
        return Run(
            (walls[-1] - walls[0]) / count,
            (cpus[-1] - cpus[0]) / count,
            total,
            total_cpu,
            memory.bytes(),
            records[-1] if records else None,
        )

    def _sample(self, patcher, callback):
        import comfy.sample

        with torch.inference_mode():  # as the host's server runs a prompt
            return comfy.sample.sample_custom(
                patcher,
                self.noise.clone(),
                self.cfg,
                self.sampler,
                self.sigmas,
                self.model.positive,
                self.model.negative,
                self.model.latent.clone(),
                noise_mask=self.mask,
                callback=callback,
                disable_pbar=True,
                seed=3,
            )

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def rounds(
        self,
        variants: Sequence[Variant],
        count: int,
        warm_up: bool = True,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Each variant once per round, in an order that turns; appended to the variants' runs."""
        if warm_up:  # loads the model, chooses kernels
            for variant in variants:
                self.run(variant)
        for i in range(count):
            for variant in [*variants[i % len(variants) :], *variants[: i % len(variants)]]:
                run = self.run(variant)
                variant.runs.append(run)
                progress(f"{self.model.name} round {i + 1}/{count} {variant.name}: {run.step:.4g} s per step")


class PeakMemory:
    """The most memory held since construction. CUDA: allocated tensors, weights included; else (Linux only): growth of
    what is resident, so without the weights that were there before."""

    def __init__(self, device: str):
        self.device = device
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back, else its reuse would not be counted
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the kernel forgets the peak so far
            self.before = _status("VmRSS")

    def bytes(self) -> int | None:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        peak = _status("VmHWM")
        return None if peak is None or self.before is None else max(peak - self.before, 0)


def _status(key: str) -> int | None:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024
    return None


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, first, third quartile)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def ratios(variant: Variant, plain: Variant, key: str = "step") -> list[float]:
    """variant / plain, round by round."""
    return [getattr(a, key) / getattr(b, key) for a, b in zip(variant.runs, plain.runs)]
