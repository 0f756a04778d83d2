"""GradPaint KSampler (Advanced): parts of a run."""

import importlib

import entry_points
import pytest
import torch
import zoo
from entry_points import case
from sampling import nested

STEPS = 6
FIRST = dict(end_at_step=2, return_with_leftover_noise="enable")
LAST = dict(start_at_step=2, add_noise="disable", mask=None)


@pytest.fixture(scope="module")
def models(pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, pack, folder) for family in ("sd15", "flux", "guided_diffusion")}


def in_parts(nodes, problem, *cuts, **changes):
    """(LATENT, records) of a run cut after these steps."""
    ends, latent, records = [*cuts, 10_000], problem.latent, []
    for i, (start, end) in enumerate(zip([0, *cuts], ends)):
        later = dict(add_noise="disable", mask=None) if i else {}
        last = end == 10_000
        latent, record = entry_points.advanced(
            nodes,
            problem,
            latent_image=latent,
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise="disable" if last else "enable",
            **later,
            **changes,
        )
        records.append(record)
    return latent, records


@pytest.mark.parametrize("family, cuts", [("sd15", (1, 4)), ("flux", (2,)), ("guided_diffusion", (4,))])
def test_parts_give_the_picture_of_one_node(pack_nodes, models, family, cuts):
    problem = case(family, models[family], steps=STEPS, cfg=2.0, settings={"strength": 2.0})
    whole, record = entry_points.ksampler(pack_nodes, problem)
    one, alone = entry_points.advanced(pack_nodes, problem)
    assert torch.equal(whole["samples"], one["samples"]) and set(one) == {"samples", "noise_mask"}
    latent, records = in_parts(pack_nodes, problem, *cuts)
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
        latent, records = in_parts(pack_nodes, problem, *cuts)
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
    assert torch.allclose(in_parts(pack_nodes, problem, 2)[0]["samples"], whole, atol=1e-5)


def test_a_node_between_may_copy_the_latent(comfy_host, pack_nodes, models):
    """What is handed on travels through nodes of the host and through a plain second part."""
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


def test_the_first_part_is_what_the_hosts_node_makes_with_a_patched_model(comfy_host, pack, pack_nodes, models):
    """Leftover noise and all; a number of steps is the same for a part and for a whole run."""
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


# ---- the host's other switches


def test_end_before_the_last_step_without_leftover_noise(pack_nodes, models):
    """The last step goes to noise level 0, as in the host's node, and the known part is the given one."""
    problem = case("flux", models["flux"], steps=STEPS)
    out, record = entry_points.advanced(pack_nodes, problem, end_at_step=4)
    known = (problem.mask == 0)[:, None].expand_as(out["samples"])
    assert (out["samples"] - problem.latent["samples"])[known].abs().max() < 1e-5
    assert record.steps == 4 and len(record.guided) == 3  # 45% of 6, not of 4
    assert "gradpaint" not in out


def test_start_later_with_noise_is_like_denoise(comfy_host, pack_nodes, models):
    """start_at_step 2 of 6 with noise: the levels of denoise 4/6, and something of the hole is kept."""
    problem = case("flux", models["flux"], steps=STEPS, settings={"strength": 0.0})
    late = entry_points.advanced(pack_nodes, problem, start_at_step=2)[0]["samples"]
    problem.steps = 4
    by_denoise = entry_points.ksampler(pack_nodes, problem, denoise=4 / 6)[0]["samples"]
    assert torch.allclose(late, by_denoise, atol=1e-5)


def test_guided_steps_are_those_of_the_window(pack, pack_nodes, models):
    problem = case("flux", models["flux"], steps=10)  # the first 4 of 10 are guided
    guided = {}
    for start in (0, 3, 4, 8):
        record = entry_points.advanced(pack_nodes, problem, start_at_step=start)[1]
        guided[start] = [s.step for s in record.guided]
    assert guided == {0: [0, 1, 2, 3], 3: [0], 4: [], 8: []}


def test_a_part_without_steps_hands_everything_on(pack_nodes, models):
    problem = case("flux", models["flux"], steps=STEPS)
    first = entry_points.advanced(pack_nodes, problem, **FIRST)[0]
    nothing, record = entry_points.advanced(
        pack_nodes, problem, latent_image=first, start_at_step=2, end_at_step=2, add_noise="disable", mask=None
    )
    assert record.steps == 0 and torch.equal(nothing["samples"], first["samples"])
    after, direct = (
        entry_points.advanced(pack_nodes, problem, latent_image=latent, **LAST)[0]["samples"]
        for latent in (nothing, first)
    )
    assert torch.equal(after, direct)


def test_a_noisy_latent_without_its_clean_one_is_refused(pack_nodes, models):
    problem = case("flux", models["flux"], steps=STEPS)
    first = entry_points.advanced(pack_nodes, problem, **FIRST)[0]
    foreign = {"samples": first["samples"]}
    with pytest.raises(ValueError, match=r"add_noise is disable.*noisy.*GradPaint KSampler \(Advanced\).*enable"):
        entry_points.advanced(pack_nodes, problem, latent_image=foreign, **{**LAST, "mask": problem.mask})


def test_a_nested_latent_can_not_be_split_in_this_host(pack_nodes, models):
    """The host's own node fails on it, with tensors that do not fit."""
    problem = case("flux", models["flux"], steps=STEPS)
    sound = {"samples": nested([problem.latent["samples"], torch.zeros(1, 8, 5, 16)])}
    with pytest.raises(ValueError, match="can't go on from a latent of several parts.*one node"):
        entry_points.advanced(pack_nodes, problem, latent_image=sound, **{**LAST, "mask": problem.mask})


@pytest.mark.parametrize("door", [entry_points.ksampler, entry_points.advanced])
def test_noise_is_not_added_to_noise(comfy_host, pack_nodes, models, door):
    problem = case("flux", models["flux"], steps=STEPS)
    first = entry_points.advanced(pack_nodes, problem, **FIRST)[0]
    (copied,) = comfy_host.SetLatentNoiseMask().set_mask({**first, "samples": first["samples"].clone()}, problem.mask)
    for latent in (first, copied):
        with pytest.raises(ValueError, match="still has the noise of an unfinished run.*add_noise disable"):
            door(pack_nodes, problem, latent_image=latent)
    with torch.inference_mode():  # the host's node finishes it: then it is a picture like any other
        (done,) = comfy_host.KSamplerAdvanced().sample(
            model=problem.model,
            add_noise="disable",
            noise_seed=3,
            start_at_step=2,
            end_at_step=10_000,
            latent_image=first,
            return_with_leftover_noise="disable",
            **problem.run_inputs(),
        )
    assert "gradpaint" in done and "gradpaint" not in door(pack_nodes, problem, latent_image=done)[0]


def test_a_latent_that_was_resized_between_is_refused_with_both_shapes(pack_nodes, models):
    problem = case("flux", models["flux"], steps=STEPS)
    first = entry_points.advanced(pack_nodes, problem, **FIRST)[0]
    larger = {**first, "samples": torch.nn.functional.interpolate(first["samples"], scale_factor=2)}
    with pytest.raises(ValueError, match=r"changed between.*\(1, 16, 32, 32\).*\(1, 16, 16, 16\)"):
        entry_points.advanced(pack_nodes, problem, latent_image=larger, **LAST)


def test_fresh_noise_ignores_an_old_handover(pack_nodes, models):
    problem = case("flux", models["flux"], steps=STEPS)
    first = entry_points.advanced(pack_nodes, problem, **FIRST)[0]
    stale = {**problem.latent, "gradpaint": first["gradpaint"]._replace(known=first["gradpaint"].known + 5)}
    out = entry_points.advanced(pack_nodes, problem, latent_image=stale)[0]
    assert torch.equal(out["samples"], entry_points.advanced(pack_nodes, problem)[0]["samples"])


def test_a_patched_model_warns_of_a_noisy_latent_of_unknown_origin(comfy_host, pack_nodes, models, caplog):
    problem = case("flux", models["flux"], steps=STEPS)
    first = entry_points.host_advanced(
        comfy_host, problem, problem.model, end_at_step=2, return_with_leftover_noise="enable"
    )
    model = entry_points.apply(pack_nodes, problem)[0]
    with torch.inference_mode(), caplog.at_level("WARNING"):
        comfy_host.KSamplerAdvanced().sample(
            model=model,
            add_noise="disable",
            noise_seed=3,
            start_at_step=2,
            end_at_step=10_000,
            latent_image=first,
            return_with_leftover_noise="disable",
            **problem.run_inputs(),
        )
    assert "no GradPaint run that is remembered" in caplog.text and "make its first part too" in caplog.text


def test_the_log_says_which_part_it_was(pack_nodes, models, caplog):
    problem = case("flux", models["flux"], steps=10)
    with caplog.at_level("INFO"):
        entry_points.advanced(pack_nodes, problem, start_at_step=3, end_at_step=6)
    assert "steps 4 to 6 of 10:" in caplog.text and "3 steps, 1 guided" in caplog.text


def test_nothing_is_differentiated_or_asked_for_where_no_step_is_guided(pack, pack_nodes, models, monkeypatch):
    parts = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.ksample_segment")
    asked = []
    original = parts.with_wrapper
    monkeypatch.setattr(
        parts, "with_wrapper", lambda model, wrapper: asked.append(wrapper.differentiates) or original(model, wrapper)
    )
    problem = case("flux", models["flux"], steps=10)
    for start in (0, 3, 4):
        entry_points.advanced(pack_nodes, problem, start_at_step=start)
    assert asked == [True, True, False]
