"""The adaptive early stop inside the host, with the model that comes with the pack."""

import logging

import pytest
import torch
from guided_runs import model_calls
from sampling import sample, schedule

STEPS = 12


@pytest.fixture(scope="module")
def model(pack):
    loader = pack.nodes.host.guided_diffusion
    with torch.inference_mode():
        return loader.load_model(str(loader.checkpoint_path(loader.BUNDLED)))


@pytest.fixture(scope="module")
def problem(pack):
    scenes = pack.gradpaint.models.scenes
    images = scenes.landscapes([scenes.HELD_OUT_SEEDS[3], scenes.HELD_OUT_SEEDS[8]], 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10:22, 8:20] = 1
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(1)), images, mask


def run(pack, tools, model, problem, sampler="ddpm", **changes):
    """(result, RunRecord, [whether each network evaluation had a graph])"""
    guided = tools.settings.GuidanceSettings(schedule=tools.settings.GuideSchedule(**changes))
    records, noise, latent, mask = [], *problem
    patched = tools.guidance.apply_gradpaint(model, guided, records.append)
    with model_calls(model) as calls:
        out = sample(
            patched,
            "guided_diffusion",
            sampler,
            schedule(model, sampler, STEPS),
            noise,
            latent,
            mask,
            conditioning=lambda family, seed=1: pack.nodes.host.guided_diffusion.conditioning(None),
        )
    return out, records[0], [graph for _, graph in calls]


EARLY = {"mode": "adaptive", "patience": 0.0, "minimum": 0.0, "tolerance": 0.3}  # soon, to be sure that it stops


def one(problem, i):
    noise, images, mask = problem
    return noise[i : i + 1], images[i : i + 1], mask


@pytest.mark.parametrize("sampler", ["ddpm", "uni_pc"])
def test_guidance_stops_and_the_rest_of_the_run_is_plain(pack, tools, model, problem, sampler, caplog):
    caplog.set_level(logging.INFO)
    out, record, graphs = run(pack, tools, model, one(problem, 0), sampler, **EARLY)
    count = record.stop.step
    assert record.stop.reason == "loss" and 3 <= count < STEPS - 1
    assert graphs[:STEPS] == [True] * count + [False] * (STEPS - count)
    assert record.backwards == count == len(record.losses("mse")) == len(record.memory.rungs)
    assert record.stop.saved == STEPS - count and [s.step for s in record.guided] == list(range(count))
    assert f"guidance stopped after step {count}" in caplog.text and "at most 12 of 12 steps will be" in caplog.text
    fixed, other, _ = run(pack, tools, model, one(problem, 0), sampler, mode="steps", steps=count)
    assert torch.equal(out, fixed)
    assert (other.stop.reason, other.stop.step, other.stop.saved) == ("schedule", count, 0)


def test_a_decision_that_is_read_late_costs_a_backward_pass_and_changes_nothing(
    pack, tools, model, problem, monkeypatch
):
    """As on a GPU, whose work the host does not wait for."""
    prompt, first, _ = run(pack, tools, model, one(problem, 0), **EARLY)
    plan = tools.module("gradpaint.method.plan")
    stop = plan.AdaptiveStop
    monkeypatch.setattr(plan, "AdaptiveStop", lambda schedule, y, mask, steps, lag: stop(schedule, y, mask, steps, 1))
    late, second, graphs = run(pack, tools, model, one(problem, 0), **EARLY)
    assert torch.equal(prompt, late) and first.stop.step == second.stop.step
    assert (second.backwards, second.stop.saved) == (first.backwards + 1, first.stop.saved - 1)
    assert graphs == [True] * second.backwards + [False] * (STEPS - second.backwards)


def test_no_image_depends_on_its_neighbours(pack, tools, model, problem):
    together, record, _ = run(pack, tools, model, problem, "ddim", **EARLY)
    for i in range(2):
        alone, own, _ = run(pack, tools, model, one(problem, i), "ddim", **EARLY)
        assert own.stop.samples == [record.stop.samples[i]]
        assert torch.allclose(together[i : i + 1], alone, atol=2e-3)


def test_without_gradients_through_the_model_nothing_is_saved(pack, tools, model, problem):
    noise, images, mask = one(problem, 0)
    guided = tools.settings.GuidanceSettings(gradient="x0", schedule=tools.settings.GuideSchedule(**EARLY))
    records = []
    sample(
        tools.guidance.apply_gradpaint(model, guided, records.append),
        "guided_diffusion",
        "ddpm",
        schedule(model, "ddpm", STEPS),
        noise,
        images,
        mask,
        conditioning=lambda family, seed=1: pack.nodes.host.guided_diffusion.conditioning(None),
    )
    assert (records[0].stop.reason, records[0].stop.saved, records[0].backwards) == ("loss", 0, 0)
