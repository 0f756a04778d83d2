"""Runs that end with noise left in their result, remembered for the run that goes on with it.

The host's ways of splitting a run (KSampler (Advanced), SplitSigmas) hand only the noisy latent on, which does not say
what is to be kept. The clean latents of the last few such runs are remembered here, and found by the noisy ones; not
by the MODEL or SAMPLER: the second part may have another, and the host may have dropped the first one's by then.
"""

from __future__ import annotations

import collections
from typing import NamedTuple

import torch
from torch import Tensor

from .part_run import Handover, PartRun

KEPT = 4  # runs: parallel ones of one graph. Their latents are in host memory
SAMPLED = 4096  # values by which a latent is known again
SAME = 0.01  # relative difference: the host may store latents in 16 bits


class Before(NamedTuple):
    """What a run goes on from. sigmas: noise levels of all steps so far."""

    sigmas: Tensor
    handover: Handover


class _Left(NamedTuple):
    """How a run ended."""

    shape: torch.Size
    values: Tensor
    before: Before


_runs: collections.deque[_Left] = collections.deque(maxlen=KEPT)  # the last one first


def remember(run: PartRun, samples: Tensor) -> None:
    """samples: the run's result, in the model's units."""
    again, others = _found(samples), list(_runs)
    _runs.clear()
    _runs.extend(left for left in others if left is not again)
    _runs.appendleft(_Left(samples.shape, _sampled(samples), Before(run.part.sigmas.cpu(), run.handover())))


def before(latent: Tensor) -> Before | None:
    """Of the run that left this latent, None if it is not remembered. latent: in the model's units."""
    found = _found(latent)
    return None if found is None else found.before


def _found(latent: Tensor) -> _Left | None:
    values = _sampled(latent)
    return next(
        (
            left
            for left in _runs
            if left.shape == latent.shape and bool((values - left.values).norm() <= SAME * left.values.norm())
        ),
        None,
    )


def _sampled(latent: Tensor) -> Tensor:
    flat = latent.detach().flatten()
    return flat[:: max(flat.numel() // SAMPLED, 1)].float().cpu()
