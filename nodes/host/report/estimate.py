"""What guidance will cost in time, said before the run; measured once the model has been guided."""

from __future__ import annotations

import statistics
import weakref
from typing import TYPE_CHECKING, NamedTuple

from ....gradpaint.method.record import StepKind
from .record import RunRecord

if TYPE_CHECKING:
    from ..sampling.run import GuidedRun

# A guided step over a plain one, lowest and highest seen (benchmarks/results/speed_cpu.md, speed_options.md).
MODEL, POSITIVE_ONLY = (1.8, 2.3), (1.5, 1.7)
FREE = (1.0, 1.0)


class Measured(NamedTuple):
    """What a model's last guided run took.

    Attributes:
        key: What the other two depend on.
        ratio: A guided step over a plain step.
        plain: Seconds of a plain step.
    """

    key: tuple
    ratio: float
    plain: float


_measured: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # the host's BaseModel -> Measured


def estimate(run: GuidedRun) -> str | None:
    """One line for the log, None for a run without guided steps."""
    kinds = run.plan.planned()
    guided, total = kinds.count(StepKind.GUIDED), len(kinds)
    if not guided:
        return None
    most = "at most " if run.plan.stop is not None else ""
    expected, made = f"{most}{guided} of {total} steps will be guided", guided + _for_pictures(run)
    measured = _measured.get(run.setup.guider.inner_model)
    if measured is not None and measured.key == _key_of(run):
        factor = _factor(measured.ratio, guided, made, total)
        seconds = (factor - 1) * total * measured.plain
        return (
            f"{expected}: {most or 'about '}{factor:.1f} times a plain run's time, {seconds:.0f} "
            f"s more (a guided step took as long as {measured.ratio:.1f} plain ones in this model's last run)"
        )
    low, high = (_factor(ratio, guided, made, total) for ratio in _expected(run))
    if high == 1:
        return f"{expected}, at next to no cost in time"
    return f"{expected}: {most or 'about '}{low:.1f} to {high:.1f} times a plain run's time, more where memory is short"


def learn(run: GuidedRun) -> None:
    """Remember what the steps of a run that is over took."""
    ratio = ratio_of(run.record)
    if ratio is not None:
        plain = statistics.median(run.record.step_seconds["plain"])
        _measured[run.setup.guider.inner_model] = Measured(_key_of(run), ratio, plain)


def ratio_of(record: RunRecord) -> float | None:
    """A guided step over a plain one in a run, medians; None where it had not both."""
    guided, plain = record.step_seconds.get("guided"), record.step_seconds.get("plain")
    return statistics.median(guided) / statistics.median(plain) if guided and plain else None


def _key_of(run: GuidedRun) -> tuple:
    cfg = float(getattr(run.setup.guider, "cfg", 1.0))
    return tuple(run.setup.y.shape), run.setup.settings.gradient, cfg == 1.0


def _expected(run: GuidedRun) -> tuple[float, float]:
    _, gradient, one_branch = _key_of(run)
    if gradient == "x0":
        return FREE
    return POSITIVE_ONLY if gradient == "cond" and not one_branch else MODEL


def _for_pictures(run: GuidedRun) -> int:
    """Guided evaluations that are made again, for the maps of all terms but the first."""
    if run.keeper is None or not run.setup.takes_gradient:
        return 0
    return sum(max(sum(bool(term.weight) for term in run.plan.terms_at(i)) - 1, 0) for i in run.keeper.map_steps)


def _factor(ratio: float, guided: int, made: int, total: int) -> float:
    """guided: steps; made: guided evaluations."""
    return 1 + (ratio * made - guided) / total
