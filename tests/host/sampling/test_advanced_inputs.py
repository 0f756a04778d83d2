"""GradPaint KSampler (Advanced): start, end, noise and leftover noise, and latents it refuses."""

import importlib

import entry_points
import pytest
import torch
import zoo
from entry_points import FIRST, LAST, case
from sampling import nested

STEPS = 6


@pytest.fixture(scope="module")
def models(comfy_host):
    return {"flux": zoo.flux(0)}


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


def test_a_segment_without_steps_hands_everything_on(pack_nodes, models):
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


def test_a_nested_latent_cannot_be_split_in_this_host(pack_nodes, models):
    """The host's own node fails on it, with tensors that do not fit."""
    problem = case("flux", models["flux"], steps=STEPS)
    sound = {"samples": nested([problem.latent["samples"], torch.zeros(1, 8, 5, 16)])}
    with pytest.raises(ValueError, match="can't go on from a latent of several parts.*one node"):
        entry_points.advanced(pack_nodes, problem, latent_image=sound, **{**LAST, "mask": problem.mask})


@pytest.mark.parametrize("entry_point", [entry_points.ksampler, entry_points.advanced])
def test_noise_is_not_added_to_noise(comfy_host, pack_nodes, models, entry_point):
    problem = case("flux", models["flux"], steps=STEPS)
    first = entry_points.advanced(pack_nodes, problem, **FIRST)[0]
    (copied,) = comfy_host.SetLatentNoiseMask().set_mask({**first, "samples": first["samples"].clone()}, problem.mask)
    for latent in (first, copied):
        with pytest.raises(ValueError, match="still has the noise of an unfinished run.*add_noise disable"):
            entry_point(pack_nodes, problem, latent_image=latent)
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
    assert "gradpaint" in done and "gradpaint" not in entry_point(pack_nodes, problem, latent_image=done)[0]


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


def test_the_log_says_which_segment_it_was(pack_nodes, models, caplog):
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
