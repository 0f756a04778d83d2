"""What guidance will cost in time, said before the run; measured once the model has been guided."""

from __future__ import annotations

import statistics
import weakref
from typing import NamedTuple

from .record import RunRecord

# A guided step over a plain one, lowest and highest seen (benchmarks/results/speed_cpu.md, speed_options.md).
MODEL, POSITIVE_ONLY = (1.8, 2.3), (1.5, 1.7)
FREE = (1.0, 1.0)


class Measured(NamedTuple):
    """Of a model's last guided run. ratio: guided step over plain step; plain: seconds of a plain step; key: what
    the ratio and the seconds depend on."""

    key: tuple
    ratio: float
    plain: float


_last: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # the host's BaseModel -> Measured


def key_of(run) -> tuple:
    """What a step's cost depends on, of a GuidedRun."""
    cfg = float(getattr(run.guider, "cfg", 1.0))
    return tuple(run.y.shape), run.settings.gradient, cfg == 1.0


def estimate(run) -> str | None:
    """One line for the log, None for a run without guided steps."""
    guided, total = sum(run.guided), len(run.guided)
    if not guided:
        return None
    most = "at most " if run.stop is not None else ""
    said, made = f"{most}{guided} of {total} steps will be guided", guided + _for_pictures(run)
    known = _last.get(run.guider.inner_model)
    if known is not None and known.key == key_of(run):
        factor = _factor(known.ratio, guided, made, total)
        seconds = (factor - 1) * total * known.plain
        return (
            f"{said}: {most or 'about '}{factor:.1f} times a plain run's time, {seconds:.0f} "
            f"s more (a guided step took as long as {known.ratio:.1f} plain ones in this model's last run)"
        )
    low, high = (_factor(ratio, guided, made, total) for ratio in _expected(run))
    if high == 1:
        return f"{said}, at next to no cost in time"
    return f"{said}: {most or 'about '}{low:.1f} to {high:.1f} times a plain run's time, more where memory is short"


def learn(run, record: RunRecord) -> None:
    """Remember what the run's steps took."""
    ratio = ratio_of(record)
    if ratio is not None:
        plain = statistics.median(record.step_seconds["plain"])
        _last[run.guider.inner_model] = Measured(key_of(run), ratio, plain)


def ratio_of(record: RunRecord) -> float | None:
    """A guided step over a plain one in a run, medians; None where it had not both."""
    guided, plain = record.step_seconds.get("guided"), record.step_seconds.get("plain")
    return statistics.median(guided) / statistics.median(plain) if guided and plain else None


def _expected(run) -> tuple[float, float]:
    _, gradient, one_branch = key_of(run)
    if gradient == "x0":
        return FREE
    return POSITIVE_ONLY if gradient == "cond" and not one_branch else MODEL


def _for_pictures(run) -> int:
    """Guided evaluations that are made a second time, for the maps of the alignment loss's own gradient."""
    keeps = run.keeper is not None and run.needs_model_gradient and run.settings.alignment.lambda_al > 0
    return len(run.keeper.map_steps) if keeps else 0


def _factor(ratio: float, guided: int, made: int, total: int) -> float:
    """guided: steps; made: guided evaluations."""
    return 1 + (ratio * made - guided) / total
