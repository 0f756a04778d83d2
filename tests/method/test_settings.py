import dataclasses

import pytest

from gradpaint.method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: GuidanceSettings(alpha=-0.1), "alpha is -0.1"),
        (lambda: GuidanceSettings(alpha=float("nan")), "alpha is nan"),
        (lambda: GuidanceSettings(alpha="big"), "alpha is 'big'"),
        (lambda: GuidanceSettings(strength=-1), "strength is -1"),
        (lambda: GuidanceSettings(strength=None), "strength is None"),
        (lambda: GuidanceSettings(normalization="l2"), "normalization is 'l2'.*needs an alpha"),
        (lambda: GuidanceSettings(normalization="l1"), "normalization is 'l1'.*rms, l2"),
        (lambda: GuidanceSettings(alignment=3), "alignment is 3"),
        (lambda: GuidanceSettings(schedule=None), "schedule is None"),
        (lambda: AlignmentSettings(lambda_al=-1), "lambda_al is -1"),
        (lambda: AlignmentSettings(border_width=0), "border_width is 0"),
        (lambda: AlignmentSettings(border_width=1.5), "border_width is 1.5.*whole"),
        (lambda: AlignmentSettings(softness=-1.0), "softness is -1.0"),
        (lambda: GuideSchedule(mode="half"), "mode is 'half'"),
        (lambda: GuideSchedule(fraction=1.5), "fraction is 1.5"),
        (lambda: GuideSchedule(steps=-1), "steps is -1"),
        (lambda: GuideSchedule(every=0), "every is 0"),
        (lambda: GuideSchedule(every=True), "every is True"),
        (lambda: GuideSchedule(between="last"), "between is 'last'.*plain, keep"),
        (lambda: GuidanceSettings(gradient="none"), "gradient is 'none'.*model, cond, x0"),
    ],
)
def test_bad_values_name_input_value_and_range(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_frozen_and_hashable():
    settings = GuidanceSettings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.alpha = 1.0
    assert settings == GuidanceSettings() and hash(settings) == hash(GuidanceSettings())


@pytest.mark.parametrize(
    "strength, alpha, active", [(1.0, None, True), (0.0, None, False), (0.0, 0.1, True), (1.0, 0.0, False)]
)
def test_active(strength, alpha, active):
    assert GuidanceSettings(strength=strength, alpha=alpha).active is active


def test_paper_presets():
    assert AlignmentSettings.paper().lambda_al == 400
    assert AlignmentSettings.paper().fraction == pytest.approx(0.45) and AlignmentSettings.paper().softness == 0
    assert GuideSchedule().fraction == 0.45 and GuideSchedule.fast().fraction == 0.5
    assert GuideSchedule.full().fraction == 1.0
