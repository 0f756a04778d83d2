"""Learns from a dry run which of a sampler's model calls are its steps.

Eq. 9 moves the sampler's next state, so we must know which tensor that is. The sampler function is run on single
numbers with a model that returns zeros; every call and every callback is recorded. Between two callbacks lies one step:
its call is the one that is given the tensor which the callback reports as the state, the others are inner stages.
A second run adds 1 to the tensors of those calls: where that reaches the next step, the tensor is the sampler's own
state and moving it is eq. 9. Where it does not (UniPC hands the model a rescaled copy), two more runs measure how far
the later states move with x0_hat, and the displacement is made through x0_hat (see `history_shift`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....gradpaint.method.plan import Step

log = logging.getLogger(__name__)

ADAPTIVE = ("dpm_adaptive_function", "sample_dpm_adaptive")  # their calls depend on the model's answers
MAX_STEPS = 2000  # beyond it a dry run would take longer than it is worth


class CallMap(NamedTuple):
    """Which of a sampler's model calls are its steps.

    Attributes:
        steps: Model call number -> Step.
        counts: Model calls made at each callback.
        total: Number of steps.
        in_place: Each step's call is given the sampler's own state tensor, so that adding to it moves the state.
        reported: The callback reports that same tensor.
        effects: See `history_shift`; None where in_place.
    """

    steps: dict[int, Step]
    counts: list[int]
    total: int
    in_place: bool
    reported: bool
    effects: list[list[float]] | None


class _Recorder:
    """Stands in for the host's model during a dry run.

    At call answers[j] sample j of the batch gets 1 instead of 0 as its answer; at call bumps[j] 1 is added to the state
    of sample j.
    """

    def __init__(self, guider: Any, sigmas: Tensor, answers: Sequence[int] = (), bumps: Sequence[int] = ()) -> None:
        self.inner_model, self.sigmas, self.answers, self.bumps = guider, sigmas, answers, bumps
        self.calls: list[tuple[Tensor, float]] = []  # what the model was given; kept, so that no address is reused
        self.values: list[Tensor] = []
        self.callbacks: list[tuple[int, Tensor]] = []  # (calls so far, state)

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        denoise_mask: Tensor | None = None,
        model_options: dict | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        call = len(self.calls)
        self.calls.append((x, float(sigma.flatten()[0])))
        self.values.append(x.clone())
        for j in (j for j, bumped in enumerate(self.bumps) if bumped == call):
            x[j] += 1.0
        out = torch.zeros_like(x)
        for j in (j for j, answered in enumerate(self.answers) if answered == call):
            out[j] = 1.0
        for function in (model_options or {}).get("sampler_post_cfg_function", []):
            out = function(
                {
                    "denoised": out,
                    "cond_denoised": out,
                    "uncond_denoised": out,
                    "cond": [],
                    "uncond": [],
                    "cond_scale": 1.0,
                    "model": self.inner_model.inner_model,
                    "sigma": sigma,
                    "input": x,
                    "model_options": model_options,
                }
            )
        return out

    def callback(self, info: dict) -> None:
        self.callbacks.append((len(self.calls), info["x"]))


class _DryRuns:
    """Runs one sampler on numbers, always with the same noise, without touching the real run's random state."""

    def __init__(self, sampler: Any, guider: Any, sigmas: Tensor, like: Tensor, seed: int | None) -> None:
        self.sampler, self.guider, self.sigmas, self.like, self.seed = sampler, guider, sigmas, like, seed

    def run(self, batch: int, **changes: Sequence[int]) -> _Recorder:
        recorder = _Recorder(self.guider, self.sigmas, **changes)
        x = torch.zeros((batch,) + (1,) * (self.like.ndim - 1), device=self.like.device)
        extra_args = {
            "model_options": {"transformer_options": {"sample_sigmas": self.sigmas}},
            "seed": self.seed,
            "denoise_mask": None,
        }
        options = dict(self.sampler.extra_options)
        if options.get("noise_sampler") is not None:  # somebody's own: of the real shape, with a state of its own
            options["noise_sampler"] = lambda sigma, sigma_next: torch.zeros_like(x)
        with torch.random.fork_rng(devices=[self.like.device] if self.like.device.type == "cuda" else []):
            torch.manual_seed(0)
            end = self.sampler.sampler_function(
                recorder,
                x,
                self.sigmas.clone(),
                extra_args=extra_args,
                callback=recorder.callback,
                disable=True,
                **options,
            )
        recorder.values.append(end)
        return recorder

    def effects(self, calls: list[int], **changes: Sequence[int]) -> list[list[float]]:
        """[j][k]: how far the state after step k (after the last: the result) moves with a change at step j's call."""
        still, moved = self.run(len(calls)), self.run(len(calls), **changes)
        moves = torch.stack([(moved.values[k] - still.values[k]).flatten(1)[:, 0] for k in calls[1:] + [-1]], dim=1)
        return moves.tolist()


def probe_sampler(sampler: Any, guider: Any, sigmas: Tensor, like: Tensor, seed: int | None = None) -> CallMap | None:
    """The sampler's call map on these sigmas, None if it can't be found out (adaptive samplers, samplers without a
    `sampler_function`). like: a state of the run; only its device and number of dimensions are used."""
    function = getattr(sampler, "sampler_function", None)
    adaptive = getattr(function, "__name__", "") in ADAPTIVE
    if function is None or adaptive or not 2 <= len(sigmas) <= MAX_STEPS:
        return None
    runs = _DryRuns(sampler, guider, sigmas, like, seed)
    try:
        recorder = runs.run(1)
        calls, reported = _step_calls(recorder)
        if not calls:
            return None
        levels = [recorder.calls[k][1] for k in calls] + [float(sigmas[-1])]
        in_place = _is_state([row[k] for k, row in enumerate(runs.effects(calls, bumps=calls))])
        effects = None if in_place else _beyond_inheritance(runs.effects(calls, answers=calls), levels)
    except Exception:  # somebody else's sampler may refuse a single number; guidance then goes by the noise level alone
        log.info("GradPaint: no dry run of sampler %s", getattr(function, "__name__", function), exc_info=True)
        return None
    steps = {k: Step(i, levels[i], levels[i + 1]) for i, k in enumerate(calls)}
    counts = [count for count, _ in recorder.callbacks]
    return CallMap(steps, counts, len(calls), in_place, reported, effects)


def _is_state(carried: list[float]) -> bool:
    """Whether tensors that carry a change on to the next step this way are the sampler's states.

    A state moves the next one its own way in the first step, which has no history yet, and in most others; single
    zeros are coincidence (a run's last step to noise level 0 forgets its state, whichever it is). A sampler that keeps
    nothing of any state but the noise level (LCM) still evaluates the model at it.
    """
    moved = sum(abs(effect) > 1e-12 for effect in carried)
    return carried[0] >= 0 and (2 * moved >= len(carried) or moved == 0)


def _beyond_inheritance(moves: list[list[float]], levels: list[float]) -> list[list[float]]:
    """What x0_hat of step j adds to step k beyond what k's state inherits: with x0_hat fixed, x shrinks like sigma."""
    inherit = [levels[k + 1] / levels[k] for k in range(len(moves))]
    return [
        [0.0] * j + [row[k] - (inherit[k] * row[k - 1] if k > j else 0.0) for k in range(j, len(row))]
        for j, row in enumerate(moves)
    ]


def _step_calls(recorder: _Recorder) -> tuple[list[int], bool]:
    """The model call of each step, and whether every callback reported that call's own tensor."""
    calls, previous, reported = [], 0, True
    for count, state in recorder.callbacks:
        candidates = range(previous, count)
        same = [k for k in candidates if recorder.calls[k][0].data_ptr() == state.data_ptr()]
        if candidates:
            calls.append(same[-1] if same else candidates[0])
            reported = reported and bool(same)
        previous = count
    return calls, reported
