"""The gradient through the conditional branch only: every other evaluation of a guided step runs without a graph.

The host evaluates all conditionings of a step in `calc_cond_batch`, once or in several calls, whatever the guider makes
of the results. A wrapper around it splits each call in two: the positive conditioning, differentiably, and the rest.
"""

from __future__ import annotations

from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

KEY = "gradpaint"
CALC_COND_BATCH = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH


def through_positive(model_options: dict, guider: Any) -> dict:
    """model_options for one evaluation by `guider` in which only its positive conditioning leaves a graph."""
    options = model_options.get("transformer_options", {})
    wrappers = options.get("wrappers", {})
    calls = {**wrappers.get(CALC_COND_BATCH, {}), KEY: [_PositiveOnly(guider)]}  # last: the innermost
    return {**model_options, "transformer_options": {**options, "wrappers": {**wrappers, CALC_COND_BATCH: calls}}}


class _PositiveOnly:
    """The `calc_cond_batch` wrapper of one differentiated evaluation."""

    def __init__(self, guider: Any) -> None:
        self.guider = guider
        self._seen: list[Tensor] = []

    def __call__(
        self, executor: Any, model: Any, conds: list, x_in: Tensor, timestep: Tensor, model_options: dict
    ) -> list:
        chosen = self._positive(conds, x_in)
        if not any(cond is not None for i, cond in enumerate(conds) if i != chosen):
            return executor(model, conds, x_in, timestep, model_options)
        # The rest first: its memory is free again when the graph is built.
        with torch.no_grad():
            rest = [None if i == chosen else cond for i, cond in enumerate(conds)]
            out = executor(model, rest, x_in, timestep, model_options)
        if chosen is None:
            return out
        only = [cond if i == chosen else None for i, cond in enumerate(conds)]
        out = list(out)
        out[chosen] = executor(model, only, x_in, timestep, model_options)[chosen]
        return out

    def _positive(self, conds: list, x_in: Tensor) -> int | None:
        """Which of conds is the positive one, None if none is or if it has been evaluated at x_in already.

        A second evaluation of the same state is a perturbed one (perturbed attention, skipped layers).
        """
        own = self.guider.conds
        positive = own["positive"] if "positive" in own else next(iter(own.values()), None)
        chosen = next((i for i, cond in enumerate(conds) if cond is not None and _same(cond, positive)), None)
        if chosen is None or any(x is x_in for x in self._seen):
            return None
        self._seen.append(x_in)
        return chosen


def _same(cond: list, positive: list | None) -> bool:
    """Whether cond is the positive conditioning or a copy of it cut to a context window, which keeps the ids."""
    if cond is positive:
        return True
    ids = [entry.get("uuid") for entry in cond]
    return positive is not None and None not in ids and ids == [entry.get("uuid") for entry in positive]
