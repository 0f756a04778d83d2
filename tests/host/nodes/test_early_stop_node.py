"""GradPaint Early-Stop Scheduler: the schedule that each choice gives."""

import pytest
from running import run


def kinds(pack, schedule, steps):
    settings = pack.gradpaint.method.settings.GuidanceSettings(schedule=schedule)
    return [kind.value for kind in pack.gradpaint.method.plan.step_kinds(settings, steps)]


@pytest.mark.parametrize(
    "mode, guided",
    [
        ("fast (first 50%)", 10),
        ("default (first 45%)", 9),
        ("full (every step)", 20),
        ("thorough (first 75%)", 15),
        ("fraction", 5),
        ("steps", 3),
    ],
)
def test_early_stop_modes(pack, pack_nodes, mode, guided):
    (schedule,) = run(pack_nodes["GradPaintEarlyStop"], mode=mode, fraction=0.25, steps=3)
    assert kinds(pack, schedule, 20).count("guided") == guided


def test_early_stop_every_second_step(pack, pack_nodes):
    (schedule,) = run(pack_nodes["GradPaintEarlyStop"], mode="full (every step)", every=2)
    assert kinds(pack, schedule, 4)[::2] == ["guided", "guided"]


def test_early_stop_keeps_the_direction_between(pack, pack_nodes):
    (schedule,) = run(pack_nodes["GradPaintEarlyStop"], mode="full (every step)", every=2, between="keep")
    assert kinds(pack, schedule, 4)[1::2] == ["reused", "reused"]


def test_early_stop_adaptive_takes_its_inputs(pack, pack_nodes):
    node, schedule = pack_nodes["GradPaintEarlyStop"], pack.gradpaint.method.settings.GuideSchedule
    assert run(node, mode="adaptive", fraction=0.1, steps=1) == (schedule.adaptive(),)
    given = {"minimum": 0.3, "maximum": 0.8, "patience": 0.2, "tolerance": 0.1}
    assert run(node, mode="adaptive", every=2, **given) == (schedule(mode="adaptive", every=2, **given),)
    assert run(node, **given) == (schedule(),)
