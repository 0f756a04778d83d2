"""Runs that end with noise left in their result, remembered for the run that goes on with it.

The host's ways of splitting a run (KSampler (Advanced), SplitSigmas) hand only the noisy latent on, which does not say
what is to be kept, and in a new tensor that has nothing of ours on it. So the clean latents of the last few such runs
are remembered here, and found by the values of the noisy ones; not by the MODEL or SAMPLER: the second part may have
another, and the host may have dropped the first one's by then.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .segment import Handover

if TYPE_CHECKING:
    from .run import GuidedRun

KEPT = 4  # runs: parallel ones of one graph. Their latents are in host memory
SAMPLED = 4096  # values by which a latent is known again
SAME = 0.01  # relative difference: the host may store latents in 16 bits


class Before(NamedTuple):
    """What a run goes on from.

    Attributes:
        sigmas: Noise levels of all steps so far.
        handover: Of the segment before.
    """

    sigmas: Tensor
    handover: Handover


class _Unfinished(NamedTuple):
    """How a run ended."""

    shape: torch.Size
    values: Tensor
    before: Before


_runs: collections.deque[_Unfinished] = collections.deque(maxlen=KEPT)  # the last one first


def remember(run: GuidedRun, samples: Tensor, handover: Handover) -> None:
    """A run ended with noise in these samples, in the model's units."""
    again, others = _find(samples), list(_runs)
    _runs.clear()
    _runs.extend(other for other in others if other is not again)
    before = Before(run.setup.segment.sigmas.cpu(), handover)
    _runs.appendleft(_Unfinished(samples.shape, _sampled(samples), before))


def before(latent: Tensor) -> Before | None:
    """Of the run that left this latent, in the model's units; None if it is not remembered."""
    run = _find(latent)
    return None if run is None else run.before


def _find(latent: Tensor) -> _Unfinished | None:
    values = _sampled(latent)
    same = (run for run in _runs if run.shape == latent.shape)
    return next((run for run in same if bool((values - run.values).norm() <= SAME * run.values.norm())), None)


def _sampled(latent: Tensor) -> Tensor:
    flat = latent.detach().flatten()
    return flat[:: max(flat.numel() // SAMPLED, 1)].float().cpu()
