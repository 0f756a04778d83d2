"""RePaint inside ComfyUI: the given sampler goes down a stretch of the noise levels, then noise is put back.

Each stretch is a combine-noisy run of its own. States are `a*x0 + b*eps`, with a and b of the model at hand; going back
from level 1 to the noisier level 2, q(x_2 | x_1), is

    x_2 = (a_2 / a_1) * x_1 + sqrt(b_2^2 - (a_2 / a_1)^2 * b_1^2) * eps
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..report.record import RunRecord
from .entry_point import EntryPoint
from .probe import CallMap
from .run import GuidedRun
from .run_setup import SamplerCallback
from .segment import Handover, Segment
from .steps import StateLevels

if TYPE_CHECKING:
    from .wrapper import SamplerCall

log = logging.getLogger(__name__)

# Added to the run's seed, clear of each other and of the neighboring seeds that samplers and known regions use.
STRETCH_SEEDS = 1000
JUMP_NOISE = 3


class Stretch(NamedTuple):
    """Indices of noise levels."""

    first: int
    last: int


def is_straight(path: list[int]) -> bool:
    """Whether a method's path goes down only."""
    return all(index_next > index for index, index_next in zip(path, path[1:]))


def stretches(path: list[int]) -> list[Stretch]:
    """The stretches down of a method's path, between its jumps."""
    tops = [0, *(i for i in range(1, len(path)) if path[i] < path[i - 1])]
    ends = [top - 1 for top in tops[1:]] + [len(path) - 1]
    return [Stretch(path[top], path[end]) for top, end in zip(tops, ends)]


def noised_again(x: Tensor, low: tuple[float, float], high: tuple[float, float], eps: Tensor) -> Tensor:
    """The state x with (a, b) = low at the noisier level with (a, b) = high; eps: standard normal, like x."""
    ratio = high[0] / low[0]
    return ratio * x + max(high[1] ** 2 - (ratio * low[1]) ** 2, 0.0) ** 0.5 * eps


def sample_stretches(
    path: list[int], call: SamplerCall, sample: Callable[[SamplerCall, EntryPoint], Tensor]
) -> tuple[Tensor, RunRecord]:
    """The samples of a run along a path with jumps, and its record; sample: makes one stretch."""
    guider, sigmas, noise = call.guider, call.sigmas, call.noise
    parts = stretches(path)
    seed = call.extra_args.get("seed") or 0
    generator = torch.Generator().manual_seed((seed + JUMP_NOISE) % 2**64)
    levels = StateLevels(guider.inner_model.model_sampling, sigmas.tolist(), noise.device)
    entry, samples = StretchEntryPoint(), noise
    with _Progress(parts, call.callback, call.disable_pbar) as progress:
        for k, part in enumerate(parts):
            executor = call.executor
            if k > 0:
                end = parts[k - 1].last
                low, high = (levels[float(sigmas[index])] for index in (end, part.first))
                state = noised_again(_state(guider, sigmas[end], samples), low, high, _draw(noise, generator))
                executor = _StartAt(call.executor, state)
            here = call._replace(
                executor=executor,
                sigmas=sigmas[part.first : part.last + 1].clone(),
                extra_args={**call.extra_args, "seed": (seed + STRETCH_SEEDS * k) % 2**64},
                callback=progress.of_stretch(k),
                disable_pbar=True,
            )
            samples = sample(here, entry)
    log.info(
        "GradPaint: RePaint: %d steps in %d stretches, %d model evaluations",
        progress.total,
        len(parts),
        entry.evaluations,
    )
    return samples, RunRecord(steps=progress.total, evaluations=entry.evaluations)


class StretchEntryPoint(EntryPoint):
    """One stretch after the other of one run; those over the same levels share their dry run."""

    def __init__(self) -> None:
        self.evaluations = 0
        self._call_maps: dict[tuple, CallMap | None] = {}
        self._resumed: tuple[Handover | None] | None = None  # looked up, and told, once for all stretches

    def resume(self, latent: Tensor, sigmas: Tensor, adds_noise: bool) -> tuple[Segment, Handover | None]:
        if self._resumed is None:
            self._resumed = (super().resume(latent, sigmas, adds_noise)[1],)
        return Segment(sigmas, 0, len(sigmas) - 1), self._resumed[0]

    def call_map(self, sampler: Any, guider: Any, sigmas: Tensor, like: Tensor, seed: int | None) -> CallMap | None:
        key = tuple(sigmas.tolist())
        if key not in self._call_maps:
            self._call_maps[key] = super().call_map(sampler, guider, sigmas, like, seed)
        return self._call_maps[key]

    def announce(self, run: GuidedRun) -> None:
        """Each stretch would say the same."""

    def finished(self, run: GuidedRun, samples: Tensor) -> None:
        self.evaluations += run.record.evaluations


class _StartAt:
    """Stands in for the executor of the sampler: the run starts from the given state instead of noise and latent."""

    def __init__(self, executor: Any, state: Tensor) -> None:
        self._executor, self._state, self.class_obj = executor, state, executor.class_obj

    def __call__(
        self,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: SamplerCallback,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None,
        disable_pbar: bool,
    ) -> Tensor:
        empty = torch.zeros_like(self._state)
        full = self.class_obj.max_denoise(guider, sigmas)
        factor = guider.inner_model.model_sampling.noise_scaling(sigmas[0], torch.ones_like(empty), empty, full)
        return self._executor(
            guider, sigmas, extra_args, callback, self._state / factor, empty, denoise_mask, disable_pbar
        )


def _state(guider: Any, sigma: Tensor, samples: Tensor) -> Tensor:
    """The sampler's last state, from what the host makes of it (a flow model's is divided by 1 - sigma)."""
    factor = guider.inner_model.model_sampling.inverse_noise_scaling(sigma, torch.ones_like(samples))
    return samples / factor


def _draw(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


class _Progress:
    """One progress bar, and the caller's callback with counts of the whole run."""

    def __init__(self, parts: list[Stretch], callback: SamplerCallback | None, disable: bool) -> None:
        self._before = [0]
        for part in parts:
            self._before.append(self._before[-1] + part.last - part.first)
        self.total = self._before.pop()
        self._callback, self._disable = callback, disable

    def __enter__(self) -> _Progress:
        self._bar = tqdm(total=self.total, desc="RePaint", disable=self._disable)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def of_stretch(self, k: int) -> SamplerCallback:
        """A callback for the sampler of stretch k."""

        def report(i: int, x0_hat: Tensor, x: Tensor, steps: int) -> None:
            self._bar.update(self._before[k] + i + 1 - self._bar.n)
            if self._callback is not None:
                self._callback(self._before[k] + i, x0_hat, x, self.total)

        return report
