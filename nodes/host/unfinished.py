"""Runs that end with noise left in their result, remembered for the run that goes on with it.

The host's ways of splitting a run (KSampler (Advanced), SplitSigmas) hand only the noisy latent on, which does not say
what is to be kept. So a patched MODEL or SAMPLER remembers the clean latent of its last such runs; whichever of them is
given the noisy one finds it. It is forgotten with the MODEL or SAMPLER, which the host keeps as long as the result.
"""
from __future__ import annotations

import collections
import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from .part_run import Handover, PartRun

KEPT = 4  # runs by one MODEL or SAMPLER: parallel ones of one graph
SAMPLED = 4096  # values by which a latent is known again
SAME = 0.01  # relative difference: the host may store latents in 16 bits


class Before(NamedTuple):
    """What a run goes on from. sigmas: noise levels of all steps so far."""

    sigmas: Tensor
    handover: Handover


class Unfinished:
    """The runs that one wrapper remembers."""

    _all: weakref.WeakSet[Unfinished] = weakref.WeakSet()

    def __init__(self):
        self._runs: collections.deque[tuple[torch.Size, Tensor, Before]] = collections.deque(maxlen=KEPT)
        self._all.add(self)

    def remember(self, run: PartRun, samples: Tensor) -> None:
        """samples: the run's result, in the model's units."""
        before = Before(run.part.sigmas.cpu(), run.handover())
        self._runs.append((samples.shape, _sampled(samples), before))

    @classmethod
    def before(cls, latent: Tensor) -> Before | None:
        """Of the run that left this latent, None if nobody remembers it."""
        values = _sampled(latent)
        runs = (run for unfinished in list(cls._all) for run in reversed(unfinished._runs))
        return next((before for shape, known, before in runs
                     if shape == latent.shape and bool((values - known).norm() <= SAME * known.norm())), None)


def _sampled(latent: Tensor) -> Tensor:
    flat = latent.detach().flatten()
    return flat[::max(flat.numel() // SAMPLED, 1)].float().cpu()
