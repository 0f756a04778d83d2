"""A run split by the host's own nodes: the second part finds what the first one kept. And other noise levels."""

import gc
import importlib

import entry_points
import pytest
import torch
import zoo
from entry_points import case

STEPS = 6
LAST = dict(add_noise="disable", start_at_step=3)


@pytest.fixture(scope="module")
def models(pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, pack, folder) for family in ("sd15", "flux", "guided_diffusion")}


@pytest.fixture
def unfinished(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.sampling.unfinished")


def patched(nodes, problem, entry_point: str):
    """(model, sampler, record)."""
    if entry_point == "apply":
        model, record = entry_points.apply(nodes, problem)
        return model, entry_points.plain_sampler(problem), record
    return problem.model, *entry_points.sampler(nodes, problem)


def split(problem, model, sampler, cut: int, between=lambda latent: latent):
    """SplitSigmas, and DisableNoise for the second SamplerCustomAdvanced."""
    import comfy_extras.nodes_custom_sampler as nodes

    high, low = nodes.SplitSigmas.execute(entry_points.sigmas(problem), cut).args
    guider = entry_points.cfg_guider(problem, model)
    with torch.inference_mode():
        noise = nodes.RandomNoise.execute(problem.seed).args[0]
        first = nodes.SamplerCustomAdvanced.execute(noise, guider, sampler, high, problem.masked).args[0]
        return nodes.SamplerCustomAdvanced.execute(
            nodes.DisableNoise.execute().args[0], guider, sampler, low, between(first)
        ).args[0]


@pytest.mark.parametrize("changes", [dict(mode="steps", steps=4), dict(mode="steps", steps=5, every=2, between="keep")])
@pytest.mark.parametrize(
    "family, entry_point", [("sd15", "apply"), ("flux", "apply"), ("flux", "sampler"), ("guided_diffusion", "sampler")]
)
def test_two_of_the_hosts_nodes_give_the_picture_of_one(pack, pack_nodes, models, family, entry_point, changes):
    schedule = pack.gradpaint.method.settings.GuideSchedule(**changes)
    problem = case(family, models[family], steps=STEPS, cfg=2.0, settings={"schedule": schedule, "strength": 2.0})
    model, sampler, record = patched(pack_nodes, problem, entry_point)
    whole = entry_points.custom(problem, model, sampler)["samples"]
    for cut in (2, 5):
        out = split(problem, model, sampler, cut)["samples"]
        assert torch.allclose(out, whole, atol=1e-4) and record.last.known_error == 0
        assert record.last.steps == STEPS - cut


def test_ksampler_advanced_twice_with_a_patched_model_each(comfy_host, pack_nodes, models, caplog):
    """As Wan 2.2 is used, with a model for each half. The first may be gone by then (ComfyUI drops kept results where
    memory is short), and the second half may be made again from the first one's latent."""
    problem = case("flux", models["flux"], steps=STEPS)
    with caplog.at_level("INFO"):
        patched = entry_points.apply(pack_nodes, problem)[0]
        first = entry_points.host_advanced(
            comfy_host, problem, patched, end_at_step=3, return_with_leftover_noise="enable"
        )
    assert caplog.text.count("The guided share was counted over this part alone") == 1
    gc.collect()
    model, record = entry_points.apply(pack_nodes, problem)
    known = (problem.mask == 0)[:, None].expand_as(problem.latent["samples"])
    for _ in range(2):
        out = entry_points.host_advanced(comfy_host, problem, model, latent_image=first, **LAST)["samples"]
        assert (out - problem.latent["samples"])[known].abs().max() < 1e-5
    assert record.last.known_error == 0


def test_parallel_runs_of_one_model_do_not_mix(comfy_host, pack_nodes, models):
    model, problems, firsts = None, [], []
    for seed in (3, 4):
        problem = case("flux", models["flux"], steps=STEPS, seed=seed)
        problem.latent = {"samples": problem.latent["samples"] * seed}
        model = model or entry_points.apply(pack_nodes, problem)[0]
        problems.append(problem)
        firsts.append(
            entry_points.host_advanced(comfy_host, problem, model, end_at_step=3, return_with_leftover_noise="enable")
        )
    for problem, first in zip(problems, firsts):
        out = entry_points.host_advanced(comfy_host, problem, model, latent_image=first, **LAST)["samples"]
        known = (problem.mask == 0)[:, None].expand_as(out)
        assert (out - problem.latent["samples"])[known].abs().max() < 1e-5


def test_latents_are_known_again_after_half_precision_and_not_after_a_change(pack_nodes, models, caplog):
    problem = case("flux", models["flux"], steps=STEPS)
    model, sampler, record = patched(pack_nodes, problem, "apply")
    halved = split(problem, model, sampler, 3, lambda latent: {**latent, "samples": latent["samples"].half().float()})
    known = (problem.mask == 0)[:, None].expand_as(halved["samples"])
    assert (halved["samples"] - problem.latent["samples"])[known].abs().max() < 1e-5
    assert "remembered" not in caplog.text
    split(problem, model, sampler, 3, lambda latent: {**latent, "samples": latent["samples"].flip(-1)})
    assert "no GradPaint run that is remembered" in caplog.text


def test_the_last_few_runs_are_remembered_each_once(comfy_host, pack_nodes, models, unfinished, monkeypatch, caplog):
    monkeypatch.setattr(unfinished, "_runs", type(unfinished._runs)(maxlen=unfinished.KEPT))
    problem = case("flux", models["flux"], steps=3)
    model = entry_points.apply(pack_nodes, problem)[0]
    firsts = []
    for problem.seed in (0, 0, *range(unfinished.KEPT + 1)):
        firsts.append(
            entry_points.host_advanced(comfy_host, problem, model, end_at_step=1, return_with_leftover_noise="enable")
        )
        assert len(unfinished._runs) == min(problem.seed + 1, unfinished.KEPT)
    entry_points.host_ksampler(comfy_host, problem, model)  # a run to its end is nothing to go on from
    assert len(unfinished._runs) == unfinished.KEPT
    assert all(left.values.numel() < 2 * unfinished.SAMPLED for left in unfinished._runs)
    last = dict(add_noise="disable", start_at_step=1)
    entry_points.host_advanced(comfy_host, problem, model, latent_image=firsts[-unfinished.KEPT], **last)
    assert "remembered" not in caplog.text
    entry_points.host_advanced(comfy_host, problem, model, latent_image=firsts[0], **last)
    assert "no GradPaint run that is remembered" in caplog.text


# ---- noise levels of other kinds


@pytest.mark.parametrize("entry_point", ["apply", "sampler"])
def test_a_run_towards_noise_is_a_plain_one(pack_nodes, models, entry_point, caplog):
    """FlipSigmas: the picture is turned into noise, there is nothing to guide."""
    import comfy_extras.nodes_custom_sampler as nodes

    problem = case("sd15", models["sd15"])
    model, sampler, record = patched(pack_nodes, problem, entry_point)
    rising = nodes.FlipSigmas.execute(entry_points.sigmas(problem)).args[0]

    def run(model, sampler):
        with torch.inference_mode():
            return nodes.SamplerCustom.execute(
                model, False, 3, 1.0, problem.positive, problem.negative, sampler, rising, problem.masked
            ).args[0]["samples"]

    with caplog.at_level("INFO"):
        out = run(model, sampler)
    assert torch.equal(out, run(problem.model, entry_points.plain_sampler(problem)))
    assert record.last.steps == 0 and "the noise grows over this run" in caplog.text


def test_the_callers_sigmas_stay_as_they_are(pack_nodes, models):
    """UniPC writes its last noise level into them: the next run on them would end before its end."""
    import comfy_extras.nodes_custom_sampler as nodes

    problem = case("flux", models["flux"], sampler="uni_pc")
    sigmas = entry_points.sigmas(problem)
    sampler, record = entry_points.sampler(pack_nodes, problem)
    outs = []
    for _ in range(2):
        with torch.inference_mode():
            outs.append(
                nodes.SamplerCustom.execute(
                    problem.model, True, 3, 1.0, problem.positive, problem.negative, sampler, sigmas, problem.masked
                ).args[0]["samples"]
            )
        assert float(sigmas[-1]) == 0 and record.last.known_error == 0
    assert torch.equal(*outs)
