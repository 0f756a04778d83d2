"""Which steps of a run are guided, reused or plain."""

import pytest

from gradpaint.method.plan import step_kinds
from gradpaint.method.record import StepKind
from gradpaint.method.settings import GuidanceSettings, GuideSchedule


def steps_of(kind, schedule, total):
    kinds = step_kinds(GuidanceSettings(schedule=schedule), total)
    assert len(kinds) == total
    return [i for i, here in enumerate(kinds) if here is kind]


@pytest.mark.parametrize(
    "schedule, total, expected",
    [
        (GuideSchedule.fast(), 30, range(15)),
        (GuideSchedule(), 100, range(45)),
        (GuideSchedule(), 30, range(13)),
        (GuideSchedule(), 4, range(2)),
        (GuideSchedule.thorough(), 30, range(22)),
        (GuideSchedule(fraction=0.29), 100, range(29)),
        (GuideSchedule.full(), 7, range(7)),
        (GuideSchedule(fraction=0.0), 7, ()),
        (GuideSchedule(fraction=0.01), 7, (0,)),
        (GuideSchedule(fraction=0.5, every=3), 20, (0, 3, 6, 9)),
        (GuideSchedule(mode="steps", steps=4), 20, range(4)),
        (GuideSchedule(mode="steps", steps=40), 5, range(5)),
        (GuideSchedule(mode="steps", steps=0), 5, ()),
        (GuideSchedule.fast(), 0, ()),
    ],
)
def test_guided_steps(schedule, total, expected):
    assert steps_of(StepKind.GUIDED, schedule, total) == list(expected)


@pytest.mark.parametrize(
    "schedule, total, expected",
    [
        (GuideSchedule(fraction=0.5, every=3, between="keep"), 20, (1, 2, 4, 5, 7, 8)),
        (GuideSchedule(mode="steps", steps=4, every=2, between="keep"), 20, (1, 3)),
        (GuideSchedule(fraction=0.5, every=3), 20, ()),
        (GuideSchedule(fraction=0.5, between="keep"), 20, ()),
        (GuideSchedule(fraction=0.0, every=2, between="keep"), 20, ()),
    ],
)
def test_reused_steps(schedule, total, expected):
    assert steps_of(StepKind.REUSED, schedule, total) == list(expected)
