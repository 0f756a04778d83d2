"""The ways in: the same picture through each, what a SAMPLER and a patched MODEL do, and which of the two acts."""

import gc
import logging

import entry_points
import pytest
import torch
import zoo
from entry_points import case


@pytest.fixture(scope="module")
def models(pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, pack, folder) for family in ("sd15", "flux", "guided_diffusion")}


@pytest.mark.parametrize(
    "cfg, sampler",
    [
        (4.0, "euler"),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in ((1.0, "dpmpp_2m_sde"), (1.0, "euler_ancestral"), (4.0, "dpmpp_2m_sde"))
        ),
    ],
)
@pytest.mark.parametrize("family", ["sd15", "flux", "guided_diffusion"])
def test_the_same_picture_through_every_entry_point(comfy_host, pack_nodes, models, family, cfg, sampler):
    problem = case(family, models[family], cfg=cfg, sampler=sampler)
    pictures = entry_points.through_every_entry_point(pack_nodes, comfy_host, problem)
    expected = pictures["GradPaint KSampler"]
    assert [name for name, picture in pictures.items() if not torch.equal(picture, expected)] == []
    plain = entry_points.host_ksampler(comfy_host, problem, models[family])
    assert not torch.allclose(plain["samples"], expected, atol=1e-3)  # guidance does something here


def test_settings_reach_every_entry_point(comfy_host, pack, pack_nodes, models):
    settings = pack.gradpaint.method.settings
    given = dict(
        strength=2.0,
        gradient="cond",
        memory=pack.gradpaint.method.settings.MemorySettings("low memory"),
        alignment=settings.AlignmentSettings(lambda_al=0.5, space="latent"),
        schedule=settings.GuideSchedule(mode="adaptive", every=2),
    )
    pictures = [
        entry_points.through_every_entry_point(
            pack_nodes, comfy_host, case("flux", models["flux"], steps=4, cfg=3.0, settings=changes)
        )
        for changes in (given, {})
    ]
    for found in pictures:
        assert all(torch.equal(picture, found["GradPaint KSampler"]) for picture in found.values())
    assert not torch.allclose(*(found["GradPaint KSampler"] for found in pictures), atol=1e-3)


@pytest.mark.parametrize("entry_point", ["apply", "sampler"])
def test_live_record_is_the_last_runs(pack_nodes, models, entry_point):
    problem = case("flux", models["flux"])
    if entry_point == "apply":
        model, record = entry_points.apply(pack_nodes, problem, keep_record="pictures")
        sampler = entry_points.plain_sampler(problem)
    else:
        model = problem.model
        sampler, record = entry_points.sampler(pack_nodes, problem, keep_record="pictures")
    assert record.last.steps == 0 and not record.last.losses("mse")
    entry_points.custom(problem, model, sampler)
    first = record.last
    assert (first.steps, len(first.guided), len(first.x0_hat), len(first.maps)) == (4, 2, 4, 2)
    problem.steps = 6
    entry_points.custom(problem, model, sampler)
    assert record.last is not first and (record.last.steps, len(record.last.losses("mse"))) == (6, 3)
    problem.mask = torch.zeros_like(problem.mask)  # a plain run: nothing of the one before it is left
    entry_points.custom(problem, model, sampler)
    assert record.last.steps == 0 and not record.last.x0_hat


def test_a_run_that_fails_leaves_an_empty_record(pack_nodes, models):
    problem = case("flux", models["flux"])
    sampler, record = entry_points.sampler(pack_nodes, problem)
    entry_points.custom(problem, problem.model, sampler)
    broken = problem.model.clone()
    broken.set_model_sampler_post_cfg_function(lambda args: args["denoised"].detach())
    with pytest.raises(ValueError, match="cuts the gradient off"):
        entry_points.custom(problem, broken, sampler)
    assert record.last.steps == 0


@pytest.mark.parametrize("entry_point", ["apply", "sampler"])
def test_nothing_of_a_run_but_its_record_stays(tools, pack_nodes, models, entry_point):
    def alive() -> set[int]:
        gc.collect()
        return {id(thing) for thing in gc.get_objects() if isinstance(thing, tools.run.GuidedRun)}

    problem, before = case("flux", models["flux"]), alive()
    model, sampler = problem.model, entry_points.plain_sampler(problem)
    if entry_point == "apply":
        model, record = entry_points.apply(pack_nodes, problem, keep_record="pictures")
    else:
        sampler, record = entry_points.sampler(pack_nodes, problem, keep_record="pictures")
    entry_points.custom(problem, model, sampler)
    assert record.last.x0_hat and not alive() - before


# ---- both, or one twice


def test_of_model_and_sampler_the_sampler_acts_and_the_log_says_so_once(pack_nodes, models, caplog):
    problem = case("flux", models["flux"])
    alone = entry_points.custom(problem, problem.model, entry_points.sampler(pack_nodes, problem, strength=3.0)[0])
    model, of_model = entry_points.apply(pack_nodes, problem)
    sampler, of_sampler = entry_points.sampler(pack_nodes, problem, strength=3.0)
    with caplog.at_level(logging.INFO):
        both = entry_points.custom(problem, model, sampler)
    assert torch.equal(both["samples"], alone["samples"])
    assert (of_model.last.steps, of_sampler.last.steps) == (0, 4)
    assert caplog.text.count("the GradPaint Sampler's settings hold") == 1


def test_an_inpaint_method_on_the_model_leaves_the_sampler_alone_too(pack, pack_nodes, models):
    problem = case("flux", models["flux"])
    method = (
        pack_nodes["GradPaintInpaintMethod"]
        .execute(model=problem.model, method="repaint", resamplings=2, jump_length=2, step=1.0, zeta=0.5)
        .args[0]
    )
    sampler = entry_points.sampler(pack_nodes, problem)[0]
    assert torch.equal(
        entry_points.custom(problem, method, sampler)["samples"],
        entry_points.custom(problem, problem.model, sampler)["samples"],
    )


def test_without_added_noise_what_is_in_the_hole_is_kept_at_any_level(pack_nodes, models):
    """The latent brings its noise along then (Add Noise, an inverted picture): it must not be blanked."""
    import comfy_extras.nodes_custom_sampler as nodes

    problem = case("sd15", models["sd15"])
    sigmas, sampling = entry_points.sigmas(problem), problem.model.model.model_sampling
    noise = nodes.Noise_RandomNoise(problem.seed).generate_noise(problem.latent)
    start = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
    start = problem.model.model.process_latent_out(start) * problem.mask[:, None] + problem.latent["samples"] * (
        1 - problem.mask[:, None]
    )
    sampler = entry_points.sampler(pack_nodes, problem, strength=0.0)[0]
    with torch.inference_mode():
        out = nodes.SamplerCustom.execute(
            problem.model,
            False,
            3,
            1.0,
            problem.positive,
            problem.negative,
            sampler,
            sigmas,
            {"samples": start, "noise_mask": problem.mask},
        ).args[0]["samples"]
    expected = entry_points.custom(problem, problem.model, sampler)["samples"]
    hole = (problem.mask > 0)[:, None].expand_as(out)
    assert torch.nn.functional.cosine_similarity(out[hole], expected[hole], dim=0) > 0.95


@pytest.mark.parametrize("entry_point", ["KSampler", "Sampler"])
def test_a_latent_of_another_models_vae_is_named(pack_nodes, models, entry_point):
    problem = case("flux", models["flux"])
    problem.latent = {"samples": problem.latent["samples"][:, :4]}
    with pytest.raises(ValueError, match="has 4 channels, but this model works on 16.*VAE that belongs to this model"):
        if entry_point == "KSampler":
            entry_points.ksampler(pack_nodes, problem)
        else:
            entry_points.custom(problem, problem.model, entry_points.sampler(pack_nodes, problem)[0])


# ---- what the host does around a run


@pytest.mark.parametrize("entry_point", ["KSampler", "Advanced", "Apply", "Sampler"])
def test_previews_show_x0_hat_with_the_known_part_in_it(pack_nodes, models, monkeypatch, entry_point):
    import latent_preview

    problem = case("flux", models["flux"], steps=5)
    seen = []
    prepare = latent_preview.prepare_callback

    def watched(*args, **kwargs):
        callback = prepare(*args, **kwargs)

        def spy(step, x0, x, total):
            seen.append((step, total, x0.clone()))
            callback(step, x0, x, total)

        return spy

    monkeypatch.setattr(latent_preview, "prepare_callback", watched)
    if entry_point == "KSampler":
        out = entry_points.ksampler(pack_nodes, problem)[0]
    elif entry_point == "Advanced":
        out = entry_points.advanced(pack_nodes, problem)[0]
    elif entry_point == "Apply":
        model = entry_points.apply(pack_nodes, problem)[0]
        out, denoised = entry_points.custom_advanced(
            problem, entry_points.cfg_guider(problem, model), entry_points.plain_sampler(problem)
        )
    else:
        guider = entry_points.cfg_guider(problem, problem.model)
        out, denoised = entry_points.custom_advanced(problem, guider, entry_points.sampler(pack_nodes, problem)[0])
    assert [(step, total) for step, total, _ in seen] == [(i, 5) for i in range(5)]
    expected = problem.model.model.process_latent_in(problem.latent["samples"])
    known = (problem.mask == 0)[:, None].expand_as(expected)
    assert all((x0 - expected)[known].abs().max() < 1e-5 for _, _, x0 in seen)
    assert all((x0 - expected)[~known].abs().max() > 0.1 for _, _, x0 in seen)
    if entry_point in ("Apply", "Sampler"):
        assert torch.allclose(denoised["samples"], out["samples"], atol=1e-4)
