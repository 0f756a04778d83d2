"""Methods as text."""

import pytest

from gradpaint.evaluation.methodspec import parse_method, preset
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


def test_presets_are_where_a_method_starts_from():
    base = GuidanceSettings(strength=0.3, alignment=AlignmentSettings(lambda_al=7.0))
    assert parse_method("gradpaint:preset=paper").settings(base) == preset("paper")
    fewer = parse_method("gradpaint:stop=0.25,preset=paper").settings(base)  # in either order
    assert fewer.schedule.fraction == 0.25 and fewer.alignment == preset("paper").alignment
    assert parse_method("gradpaint:preset=latent-paper").settings(base).alignment.lambda_al == 0
    assert parse_method("gradpaint:preset=GradPaint-Fast").settings(base).schedule.fraction == 0.5
    with pytest.raises(ValueError, match="preset is 'best'.*paper, paper-l2, GradPaint-Fast, latent-paper"):
        parse_method("gradpaint:preset=best")
    with pytest.raises(ValueError, match="'preset' is no option of dps"):
        parse_method("dps:preset=paper")


def test_fields_of_one_name_are_told_apart():
    assert parse_method("gradpaint:fraction=0.5").settings(GuidanceSettings()).schedule.fraction == 0.5
    assert parse_method("gradpaint:alignment_softness=0.25").settings(GuidanceSettings()).alignment.softness == 0.25


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
        ("gradpaint_full:stop=0.5", "'stop' is no option of gradpaint_full; .* except the schedule's"),
    ],
)
def test_errors(text, message):
    with pytest.raises(ValueError, match=message):
        parse_method(text)
