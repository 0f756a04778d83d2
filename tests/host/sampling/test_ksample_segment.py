"""GradPaint KSampler (Advanced): several nodes, each with a segment of a run, give what one node gives."""

import entry_points
import pytest
import torch
import zoo
from entry_points import FIRST, LAST, case, in_segments

STEPS = 6


@pytest.fixture(scope="module")
def models(pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, pack, folder) for family in ("sd15", "flux", "guided_diffusion")}


@pytest.mark.parametrize("family, cuts", [("sd15", (1, 4)), ("flux", (2,)), ("guided_diffusion", (4,))])
def test_segments_give_the_picture_of_one_node(pack_nodes, models, family, cuts):
    problem = case(family, models[family], steps=STEPS, cfg=2.0, settings={"strength": 2.0})
    whole, record = entry_points.ksampler(pack_nodes, problem)
    one, alone = entry_points.advanced(pack_nodes, problem)
    assert torch.equal(whole["samples"], one["samples"]) and set(one) == {"samples", "noise_mask"}
    latent, records = in_segments(pack_nodes, problem, *cuts)
    assert torch.allclose(latent["samples"], one["samples"], atol=1e-5)
    assert [r.steps for r in records] == [b - a for a, b in zip((0, *cuts), (*cuts, STEPS))]
    assert sum(r.backwards for r in records) == record.backwards == alone.backwards == 3
    assert records[-1].stop == record.stop
    known = (problem.mask == 0)[:, None].expand_as(latent["samples"])
    assert torch.equal(latent["samples"][known], whole["samples"][known])
    assert set(latent) == {"samples", "noise_mask"}  # nothing of ours is left in a finished latent


@pytest.mark.parametrize(
    "changes",
    [
        dict(mode="fraction", fraction=0.34),
        dict(mode="fraction", fraction=1.0, every=2),
        dict(mode="fraction", fraction=1.0, every=2, between="keep"),
        dict(mode="steps", steps=4, every=3, between="keep"),
        dict(mode="adaptive", minimum=0.1, maximum=1.0, patience=0.05, tolerance=0.5),
        dict(mode="adaptive", minimum=0.1, maximum=0.8, every=2, between="keep"),
    ],
)
def test_every_schedule_over_the_whole_run(pack, pack_nodes, models, changes):
    schedule = pack.gradpaint.method.settings.GuideSchedule(**changes)
    problem = case("flux", models["flux"], steps=9, settings={"strength": 2.0, "schedule": schedule})
    whole, record = entry_points.ksampler(pack_nodes, problem)
    for cuts in ((3,), (2, 5)):
        latent, records = in_segments(pack_nodes, problem, *cuts)
        assert torch.allclose(latent["samples"], whole["samples"], atol=2e-5)
        guided = [start + i for start, r in zip((0, *cuts), records) for i in [s.step for s in r.guided]]
        assert guided == [s.step for s in record.guided] and records[-1].stop == record.stop
        assert sum(([s.sigma for s in r.reused] for r in records), []) == [s.sigma for s in record.reused]


@pytest.mark.parametrize("gradient, cuts", [("model", (-1,)), ("x0", (1,))])
def test_an_adaptive_stop_is_the_same_wherever_the_cut_is(pack, pack_nodes, gradient, cuts):
    """Before the step at which the loss stops falling, at it and after it; with the model that comes with the pack."""
    loader, scenes = pack.nodes.host.guided_diffusion, pack.gradpaint.models.scenes
    with torch.inference_mode():
        model = loader.load_model(str(loader.checkpoint_path(loader.BUNDLED)))
    mask = torch.zeros(1, 32, 32)
    mask[:, 10:22, 8:20] = 1
    early = pack.gradpaint.method.settings.GuideSchedule(
        mode="adaptive", patience=0.0, minimum=0.0, maximum=1.0, tolerance=0.3
    )
    nothing = loader.conditioning(None)
    problem = entry_points.Case(
        model,
        {"samples": scenes.landscapes([scenes.HELD_OUT_SEEDS[3]], 32)},
        mask,
        nothing,
        nothing,
        steps=12,
        scheduler="karras",
        settings={"schedule": early, "gradient": gradient},
    )
    whole, record = entry_points.ksampler(pack_nodes, problem)
    stop = record.stop
    assert stop.reason == "loss" and 2 < stop.step < 11  # else nothing is tested here
    for cut in cuts:
        first, before = entry_points.advanced(
            pack_nodes, problem, end_at_step=stop.step + cut, return_with_leftover_noise="enable"
        )
        for _ in range(2):  # the host keeps what a node made, and may run the next one again
            latent, after = entry_points.advanced(
                pack_nodes, problem, latent_image=first, start_at_step=stop.step + cut, add_noise="disable", mask=None
            )
            assert torch.allclose(latent["samples"], whole["samples"], atol=1e-4) and after.stop == stop
            assert before.backwards + after.backwards == record.backwards


def test_batches_with_a_mask_each_and_the_alignment_loss(pack, pack_nodes, models):
    alignment = pack.gradpaint.method.settings.AlignmentSettings(lambda_al=0.5, space="latent")
    problem = case("flux", models["flux"], batch=2, steps=STEPS, settings={"alignment": alignment})
    problem.mask = torch.cat([problem.mask, problem.mask.transpose(1, 2)])
    whole = entry_points.ksampler(pack_nodes, problem)[0]["samples"]
    assert torch.allclose(in_segments(pack_nodes, problem, 2)[0]["samples"], whole, atol=1e-5)


def test_a_node_between_may_copy_the_latent(comfy_host, pack_nodes, models):
    """What is handed on travels through nodes of the host and through a plain second segment."""
    problem = case("flux", models["flux"], steps=STEPS)
    first = entry_points.advanced(pack_nodes, problem, **FIRST)[0]
    direct = entry_points.advanced(pack_nodes, problem, latent_image=first, **LAST)[0]
    (copied,) = comfy_host.SetLatentNoiseMask().set_mask(first, problem.mask)
    assert torch.equal(
        entry_points.advanced(pack_nodes, problem, latent_image=copied, **LAST)[0]["samples"], direct["samples"]
    )
    with torch.inference_mode():
        (middle,) = comfy_host.KSamplerAdvanced().sample(
            model=problem.model,
            add_noise="disable",
            noise_seed=3,
            start_at_step=2,
            end_at_step=4,
            latent_image=first,
            return_with_leftover_noise="enable",
            **problem.run_inputs(),
        )
    end, record = entry_points.advanced(pack_nodes, problem, latent_image=middle, **{**LAST, "start_at_step": 4})
    known = (problem.mask == 0)[:, None].expand_as(end["samples"])
    assert (end["samples"] - problem.latent["samples"])[known].abs().max() < 1e-5 and record.steps == 2


def test_the_first_segment_is_what_the_hosts_node_makes_with_a_patched_model(comfy_host, pack, pack_nodes, models):
    """Leftover noise and all; a number of steps is the same for a segment and for a whole run."""
    schedule = pack.gradpaint.method.settings.GuideSchedule(mode="steps", steps=2)
    problem = case("flux", models["flux"], steps=STEPS, settings={"schedule": schedule})
    first = entry_points.advanced(pack_nodes, problem, end_at_step=3, return_with_leftover_noise="enable")[0]
    with torch.inference_mode():
        (theirs,) = comfy_host.KSamplerAdvanced().sample(
            model=entry_points.apply(pack_nodes, problem)[0],
            add_noise="enable",
            noise_seed=3,
            start_at_step=0,
            end_at_step=3,
            latent_image=problem.masked,
            return_with_leftover_noise="enable",
            **problem.run_inputs(),
        )
    assert torch.equal(first["samples"], theirs["samples"])
