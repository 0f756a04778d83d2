"""Whole runs of patched models: recomputing blocks changes no bit of the picture. Canceling works too."""

import importlib

import controls
import loras
import pytest
import torch
import zoo
from leftovers import changes, snapshot
from offload import offloading
from sampling import problem, sample, schedule

MODES = ("fastest", "low memory", "lowest memory")


def text(seed=1, **changes):
    ((embedding, options),) = zoo.conditioning("sd15", seed)
    return [[embedding, {**options, **changes}]]


def lora_hooks(seed: int):
    import comfy.hooks

    return comfy.hooks.create_hook_lora(loras.lora(zoo.sd15(), seed), 0.8, 0.0)


def run(pack, model, mode, positive=None, negative=None, cfg=2.0, gradient="model"):
    """(picture, RunRecord) of three guided steps."""
    guidance = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.wrapper")
    settings = pack.gradpaint.method.settings
    noise, latent, mask = problem("sd15")
    records = []
    guided = guidance.apply_gradpaint(
        model,
        settings.GuidanceSettings(schedule=settings.GuideSchedule.full(), gradient=gradient),
        records.append,
        guidance.MemorySettings(mode),
    )
    conds = {1: positive or text(1), 2: negative or text(2)}
    torch.manual_seed(0)
    out = sample(
        guided,
        "sd15",
        "euler_ancestral",
        schedule(model, "euler_ancestral", 3),
        noise,
        latent,
        mask,
        cfg=cfg,
        conditioning=lambda family, seed=1: conds[seed],
    )
    return out, records[0]


def assert_one_picture(pack, model=zoo.sd15, conds=lambda: (), **options):
    """model, conds: called anew for each run."""
    pictures = []
    for mode in MODES:
        out, record = run(pack, model(), mode, *conds(), **options)
        assert record.backwards == 3 and len(record.memory.rungs) == 3
        pictures.append(out)
    assert pictures[0].isfinite().all() and all(torch.equal(picture, pictures[0]) for picture in pictures)
    return pictures[0]


def test_weights_that_change_within_an_evaluation(pack):
    picture = assert_one_picture(pack, conds=lambda: (text(1, hooks=lora_hooks(11)), text(2, hooks=lora_hooks(12))))
    assert not torch.equal(picture, run(pack, zoo.sd15(), "fastest")[0])


def test_controlnets(pack):
    def conds():
        return (controls.with_control(text(1), controls.controlnet(), controls.t2i_adapter()),)

    assert_one_picture(pack, lambda: zoo.sd15(**controls.CONFIG), conds)


def test_offloaded_weights(pack, monkeypatch):
    resident = run(pack, zoo.sd15(), "fastest")[0]
    with offloading(monkeypatch) as state:
        assert torch.equal(assert_one_picture(pack), resident)
    assert state.taken == state.released > 0


def test_half_precision(pack):
    assert_one_picture(pack, lambda: zoo.sd15(dtype=torch.bfloat16))


def test_gradient_through_the_positive_only(pack):
    assert_one_picture(pack, gradient="cond")


def test_features_kept_from_block_to_block_and_step_to_step(pack):
    """A patch hands tensors, with their graphs, past the blocks and on to the next step."""

    def model():
        kept, patched = {}, zoo.sd15().clone()

        def inside(q, k, v, extra_options):
            before = kept.get("q")
            kept["q"] = q
            return q if before is None or before.shape != q.shape else q + 0.3 * before, k, v

        def between(h, options):
            kept.setdefault("h", []).append(h)
            return h + 0.1 * kept["h"][-2].mean() if len(kept["h"]) > 1 else h

        patched.set_model_attn1_patch(inside)
        patched.set_model_input_block_patch(between)
        return patched

    assert_one_picture(pack, model)


def test_random_numbers_in_a_block(pack):
    def model():
        patched = zoo.sd15().clone()
        patched.set_model_attn1_output_patch(lambda n, extra_options: n + 0.1 * torch.randn_like(n))
        return patched

    assert_one_picture(pack, model)


def test_canceled_while_a_block_is_recomputed(pack):
    import comfy.model_management as management

    patched, armed, passes = zoo.sd15().clone(), [False], []

    def cancel(q, k, v, extra_options):
        passes.append(torch.is_grad_enabled())
        if armed[0] and len(passes) > attentions + 2:  # so this is in the backward pass
            management.interrupt_current_processing(True)
        return q, k, v

    patched.set_model_attn1_patch(cancel)
    attentions = sum(name.endswith("attn1") for name, _ in patched.model.named_modules())
    expected, _ = run(pack, patched, "fastest")
    before = snapshot(patched)
    passes.clear()
    armed[0] = True
    try:
        with pytest.raises(management.InterruptProcessingException):
            run(pack, patched, "low memory")
    finally:
        management.interrupt_current_processing(False)
    assert len(passes) <= 2 * attentions + 2  # within the first step
    assert changes(before, snapshot(patched)) == []
    armed[0] = False
    assert torch.equal(run(pack, patched, "low memory")[0], expected)
