"""RePaint inside the host: the given sampler goes down a stretch of the noise levels, then noise is put back.

Each stretch is a combine_noisy run of its own. States are `a*x0 + b*eps`, with a and b of the model at hand; going back
from level 1 to the noisier level 2, q(x_2 | x_1), is

    x_2 = (a_2 / a_1) * x_1 + sqrt(b_2^2 - (a_2 / a_1)^2 * b_1^2) * eps
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ....gradpaint.sampling.baselines.repaint import repaint_path
from ..report.record import RunRecord
from .baselines import UNGUIDED, NoisyWrapper
from .steps import StateLevels

log = logging.getLogger(__name__)

# Added to the run's seed, clear of each other and of the neighbouring seeds that samplers and known regions use.
STRETCH_SEEDS = 1000
JUMP_NOISE = 3


class Stretch(NamedTuple):
    """Indices of noise levels."""

    first: int
    last: int


def stretches(path: list[int]) -> list[Stretch]:
    """The ways down of a `repaint_path`, between its jumps."""
    tops = [0, *(i for i in range(1, len(path)) if path[i] < path[i - 1])]
    ends = [top - 1 for top in tops[1:]] + [len(path) - 1]
    return [Stretch(path[top], path[end]) for top, end in zip(tops, ends)]


def noised_again(x: Tensor, low: tuple[float, float], high: tuple[float, float], eps: Tensor) -> Tensor:
    """The state x with (a, b) = low at the noisier level with (a, b) = high; eps: standard normal, like x."""
    keep = high[0] / low[0]
    return keep * x + max(high[1] ** 2 - (keep * low[1]) ** 2, 0.0) ** 0.5 * eps


class RepaintWrapper(NoisyWrapper):
    """The `sampler_sample` wrapper. Holds settings only."""

    def __init__(self, resamplings: int, jump_length: int, on_record=None, memory=None):
        super().__init__(UNGUIDED, on_record, memory)
        repaint_path(1, resamplings, jump_length)  # are they in range?
        self.resamplings, self.jump_length = resamplings, jump_length

    def _sample(self, executor, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar):
        ways = stretches(repaint_path(len(sigmas) - 1, self.resamplings, self.jump_length))
        seed = extra_args.get("seed") or 0
        generator = torch.Generator().manual_seed((seed + JUMP_NOISE) % 2**64)
        levels = StateLevels(guider.inner_model.model_sampling, sigmas.tolist(), noise.device)
        part, samples = _StretchWrapper(self.memory), None
        with _Progress(ways, callback, disable_pbar) as progress:
            for k, way in enumerate(ways):
                start = executor
                if k > 0:
                    low, high = (levels[float(sigmas[index])] for index in (ways[k - 1].last, way.first))
                    eps = _draw(noise, generator)
                    start = _StartAt(
                        executor, noised_again(_state(guider, sigmas[ways[k - 1].last], samples), low, high, eps)
                    )
                arguments = {**extra_args, "seed": (seed + STRETCH_SEEDS * k) % 2**64}
                samples = part(
                    start,
                    guider,
                    sigmas[way.first : way.last + 1].clone(),
                    arguments,
                    progress.of_stretch(k),
                    noise,
                    latent_image,
                    denoise_mask,
                    True,
                )
        log.info(
            "GradPaint: RePaint: %d steps in %d stretches, %d model evaluations",
            progress.total,
            len(ways),
            part.evaluations,
        )
        if self.on_record is not None:
            self.on_record(RunRecord(steps=progress.total, evaluations=part.evaluations))
        return samples


class _StretchWrapper(NoisyWrapper):
    """combine_noisy over one stretch after the other of one run; those over the same levels share their dry run."""

    def __init__(self, memory):
        super().__init__(UNGUIDED, None, memory)
        self.evaluations = 0
        self._plans: dict[tuple, object] = {}

    def _plan(self, sampler, guider, sigmas: Tensor, like: Tensor, seed=None):
        key = tuple(sigmas.tolist())
        if key not in self._plans:
            self._plans[key] = super()._plan(sampler, guider, sigmas, like, seed)
        return self._plans[key]

    def _done(self, run, samples) -> None:
        self.evaluations += run.record.evaluations


class _StartAt:
    """Stands in for the executor of the sampler: the run starts from the given state instead of noise and latent."""

    def __init__(self, executor, state: Tensor):
        self._executor, self._state, self.class_obj = executor, state, executor.class_obj

    def __call__(self, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar):
        empty = torch.zeros_like(self._state)
        full = self.class_obj.max_denoise(guider, sigmas)
        factor = guider.inner_model.model_sampling.noise_scaling(sigmas[0], torch.ones_like(empty), empty, full)
        return self._executor(
            guider, sigmas, extra_args, callback, self._state / factor, empty, denoise_mask, disable_pbar
        )


def _state(guider, sigma: Tensor, samples: Tensor) -> Tensor:
    """The sampler's last state, from what the host makes of it (a flow model's is divided by 1 - sigma)."""
    factor = guider.inner_model.model_sampling.inverse_noise_scaling(sigma, torch.ones_like(samples))
    return samples / factor


def _draw(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


class _Progress:
    """One progress bar, and the caller's callback with counts of the whole run."""

    def __init__(self, ways: list[Stretch], callback, disable: bool):
        self._before = [0]
        for way in ways:
            self._before.append(self._before[-1] + way.last - way.first)
        self.total = self._before.pop()
        self._callback, self._disable = callback, disable

    def __enter__(self) -> _Progress:
        self._bar = tqdm(total=self.total, desc="RePaint", disable=self._disable)
        return self

    def __exit__(self, *error) -> None:
        self._bar.close()

    def of_stretch(self, k: int):
        """A callback for the sampler of stretch k."""

        def report(i: int, x0_hat: Tensor, x: Tensor, steps: int) -> None:
            self._bar.update(self._before[k] + i + 1 - self._bar.n)
            if self._callback is not None:
                self._callback(self._before[k] + i, x0_hat, x, self.total)

        return report
