"""Methods as text."""

import pytest

from gradpaint.evaluation.methodspec import parse_method
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings


def test_plain_name():
    spec = parse_method("combine_image")
    assert (spec.label, spec.name, spec.steps, spec.guidance, spec.options) == ("combine_image",) * 2 + (None, {}, {})
    base = GuidanceSettings(alignment=AlignmentSettings(lambda_al=0.3))
    assert spec.settings(base) == base


def test_options_of_the_method_and_of_the_guidance():
    spec = parse_method("repaint:steps=250,resamplings=3,jump-length=2")
    assert (spec.steps, spec.options) == (250, {"resamplings": 3, "jump_length": 2})
    settings = parse_method("gradpaint:stop=0.25,lambda_al=0,gradient=x0").settings(GuidanceSettings())
    assert (settings.schedule.mode, settings.schedule.fraction) == ("fraction", 0.25)
    assert (settings.alignment.lambda_al, settings.gradient) == (0, "x0")
    assert settings.alignment.softness == GuidanceSettings().alignment.softness
    assert parse_method("gradpaint:every=2").settings(GuidanceSettings()).schedule.every == 2


def test_a_methods_own_strength_goes_before_the_runs_alpha():
    settings = parse_method("gradpaint:strength=2").settings(GuidanceSettings(alpha=0.05))
    assert (settings.strength, settings.alpha) == (2, None)
    assert parse_method("gradpaint:alpha=0.1").settings(GuidanceSettings(strength=3.0)).alpha == 0.1


def test_adaptive_stop_by_either_name():
    for text in ("gradpaint:stop=adaptive,patience=0.2", "gradpaint:mode=adaptive,patience=0.2"):
        schedule = parse_method(text).settings(GuidanceSettings()).schedule
        assert (schedule.mode, schedule.patience) == ("adaptive", 0.2)


def test_labels_make_distinct_file_names():
    slugs = {parse_method(text).slug for text in ("gradpaint", "gradpaint:stop=0.5", "gradpaint:stop=0.25")}
    assert len(slugs) == 3 and all(":" not in slug and "=" not in slug and "," not in slug for slug in slugs)


@pytest.mark.parametrize(
    "text, message",
    [
        ("lama", "method is 'lama'.*gradpaint_fast"),
        ("repaint:resamplings", "is not option=value"),
        ("repaint:zeta=1", "'zeta' is no option of repaint; it takes steps, resamplings, jump_length"),
        ("combine_image:stop=1", "'stop' is no option of combine_image"),
        ("repaint:steps=none", "steps is 'none'"),
        ("gradpaint:stop=2", "fraction is 2"),
        ("gradpaint:speed=2", "'speed' is no option of gradpaint"),
        ("gradpaint_full:stop=0.5", "'stop' is no option of gradpaint_full; .* but those of the schedule"),
    ],
)
def test_errors(text, message):
    with pytest.raises(ValueError, match=message):
        parse_method(text)
