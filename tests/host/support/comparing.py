"""Gradients of what is put on the tiny SD1.5 or its conditioning: by the bridge, by plain autograd, by differences."""

from __future__ import annotations

import controls
import zoo
from one_step import difference_error, evaluate, make_ordinary
from sampling import problem, sample, schedule
from twins import relative_error


def text(seed=1, **changes):
    ((embedding, options),) = zoo.conditioning("sd15", seed)
    return [[embedding, {**options, **changes}]]


def run(tools, model, positive=None, negative=None, cfg=2.0, sampler="euler", memory="auto", steps=2):
    """Two guided steps that must end well. Returns (samples, record)."""
    noise, latent, mask = problem("sd15")
    records = []
    settings = tools.settings.GuidanceSettings(schedule=tools.settings.GuideSchedule.full())
    memories = tools.settings
    guided = tools.guidance.apply_gradpaint(model, settings, records.append, memories.MemorySettings(memory))
    conds = {1: positive or text(1), 2: negative or text(2)}
    out = sample(
        guided,
        "sd15",
        sampler,
        schedule(model, sampler, steps),
        noise,
        latent,
        mask,
        cfg=cfg,
        conditioning=lambda family, seed=1: conds[seed],
    )
    known = (mask == 0).expand_as(out)
    assert out.isfinite().all() and (out - model.model.process_latent_in(latent))[known].abs().max() < 1e-5
    (record,) = records
    assert record.backwards == steps and record.skipped == 0
    return out, record


def base(ordinary: bool):
    model = zoo.sd15()
    if ordinary:
        make_ordinary(model.model)
    return model


def compare(tools, model=base, positive=None, negative=None, cfg=1.0, conditioning=None, adapts=False):
    """Asserts that the bridge's gradient is plain autograd's and near finite differences; runs two steps.

    model and conditioning: made for the bridge (False) or of ordinary tensors (True). Returns (output, gradient).
    """

    def conds(ordinary):
        return (positive or text(1)) if conditioning is None else conditioning(ordinary)

    expected_out, expected = evaluate(tools, model(True), conds(True), negative, cfg, "plain")
    out, grad = evaluate(tools, model(False), conds(False), negative, cfg, adapts=adapts)
    assert difference_error(tools, grad, model(False), conds(False), negative, cfg) < 5e-3
    assert relative_error(out, expected_out) < 1e-5 and relative_error(grad, expected) < 1e-4
    run(tools, model(False), conds(False), negative, cfg)
    return out, grad


def two_blocks(ordinary: bool):
    """SD1.5 with two blocks a level, where a T2I adapter's features belong."""
    model = zoo.sd15(**controls.CONFIG)
    if ordinary:
        make_ordinary(model.model)
    return model
