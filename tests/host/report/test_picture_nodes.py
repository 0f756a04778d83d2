"""What the GradPaint KSampler keeps of a run, and GradPaint Pictures, in the real host."""

import types

import pytest
import torch
import zoo
from guided_runs import model_calls
from running import run
from sampling import problem, sample, schedule


@pytest.fixture(scope="module")
def models(pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, pack, folder) for family in ("sd15", "guided_diffusion")}


def sampled(pack_nodes, models, family, keep_record, sampler_name="euler", **more):
    """(LATENT, record) of a KSampler node run of 10 steps, the first four guided."""
    _, latent, mask = problem(family, batch=2)
    positive, negative = zoo.conditioning(family), zoo.conditioning(family, seed=2)
    with torch.inference_mode():
        return run(
            pack_nodes["GradPaintKSampler"],
            model=models[family],
            seed=3,
            steps=10,
            cfg=1.0,
            sampler_name=sampler_name,
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image={"samples": latent},
            mask=mask[:, 0],
            keep_record=keep_record,
            **more,
        )


def pictures(pack_nodes, record, **more):
    with torch.inference_mode():
        return run(pack_nodes["GradPaintPictures"], record=record, **more)


def test_only_the_losses_are_kept_unless_asked_for(pack_nodes, models):
    with model_calls(models["guided_diffusion"]) as calls:
        _, record = sampled(pack_nodes, models, "guided_diffusion", "losses")
    assert len(calls) == 10 and not record.x0_hat and not record.maps
    timeline, gradients, losses = pictures(pack_nodes, record)
    assert losses.shape == (1, 520, 900, 3) and len(losses.unique()) > 10
    for blocked in (timeline, gradients):  # said only if the output is used
        assert "set keep_record of the GradPaint KSampler to pictures" in blocked.message


def test_pictures_are_kept_and_the_result_stays_the_same(pack_nodes, models):
    plain, _ = sampled(pack_nodes, models, "guided_diffusion", "losses")
    with model_calls(models["guided_diffusion"]) as calls:
        kept, record = sampled(pack_nodes, models, "guided_diffusion", "pictures")
    assert torch.equal(plain["samples"], kept["samples"])
    assert len(calls) == record.evaluations == 14 and record.backwards == 8
    assert sorted(record.x0_hat) == [0, 1, 3, 4, 5, 6, 8, 9] and sorted(record.maps) == [0, 1, 2, 3]
    assert record.x0_hat[0].shape == (2, 3, 16, 16) and record.maps[0]["mse"].shape == (2, 16, 16)
    assert all(t.device.type == "cpu" for t in record.x0_hat.values()) and record.maps[3]["alignment"].max() > 0
    assert record.y.shape == (2, 3, 16, 16) and record.y.device.type == "cpu"
    timeline, gradients, losses = pictures(pack_nodes, record, size=32)
    assert timeline.shape[1] == 32 + 2 * 2 * 40 and gradients.shape[1] == 32 + 4 * 40
    assert all(
        image.dtype == torch.float32 and 0 <= image.min() and image.max() <= 1
        for image in (timeline, gradients, losses)
    )


def test_maps_are_the_gradients_of_the_run(pack_nodes, models, tools):
    """The two terms' gradients add up to what eq. 9 is given: along a line of one channel, in one sign."""
    _, off = sampled(
        pack_nodes, models, "guided_diffusion", "pictures", alignment=tools.settings.AlignmentSettings(lambda_al=0.0)
    )
    _, on = sampled(
        pack_nodes, models, "guided_diffusion", "pictures", alignment=tools.settings.AlignmentSettings(lambda_al=0.3)
    )
    assert off.maps[0].keys() == {"mse"} and off.backwards == 4
    assert torch.allclose(off.maps[0]["mse"], on.maps[0]["mse"], rtol=1e-3, atol=1e-3 * float(off.maps[0]["mse"].max()))
    whole = on.guided[0].gradient_rms * (3 * 16 * 16) ** 0.5
    for norm in (on.maps[0]["mse"].flatten(1).norm(dim=1), on.maps[0]["alignment"].flatten(1).norm(dim=1)):
        assert (norm <= whole * 1.5).all() and (norm > 0).all()


def test_random_numbers_of_the_run_are_not_disturbed(pack_nodes, models):
    """A sampler that draws noise draws the same with and without the extra evaluations."""
    plain, kept = (sampled(pack_nodes, models, "guided_diffusion", keep, "ddpm")[0] for keep in ("losses", "pictures"))
    assert torch.equal(plain["samples"], kept["samples"])


def test_latents_are_shown_in_preview_colours_or_by_the_vae(pack_nodes, models):
    _, record = sampled(pack_nodes, models, "sd15", "pictures")
    assert record.x0_hat[0].shape == (2, 4, 16, 16) and record.latent_format is models["sd15"].model.latent_format
    assert record.maps[0].keys() == {"mse"}  # latents: off unless a space is chosen
    seen = []

    def decode(latent):
        seen.append(latent)
        return torch.zeros(2, 128, 128, 3)

    quick, gradients, _ = pictures(pack_nodes, record, size=32)
    assert quick.shape[1] == 32 + 4 * 40 and gradients.shape[0] == 1
    full, _, _ = pictures(pack_nodes, record, size=128, vae=types.SimpleNamespace(decode=decode))
    assert full.shape[1] == 32 + 4 * 136 and full[0, 60, -60].max() == 0
    assert torch.allclose(seen[0], record.latent_format.process_out(record.x0_hat[0])) and len(seen) == 16
    assert torch.allclose(seen[8], record.latent_format.process_out(record.collages[0]))


@pytest.mark.parametrize("family", ["guided_diffusion", "sd15"])
def test_below_each_estimate_is_its_collage(pack, pack_nodes, models, family, monkeypatch):
    """Eq. 3 of what was kept: the estimate in the hole, the given latent elsewhere, in the model's units."""
    from importlib import import_module

    latent, record = sampled(pack_nodes, models, family, "pictures")
    given = models[family].model.process_latent_in(problem(family, batch=2)[1])
    result = models[family].model.process_latent_in(latent["samples"])
    known, hole = (record.mask == 0).expand_as(given), (record.mask == 1).expand_as(given)
    assert known.any() and hole.any() and sorted(record.collages) == sorted(record.x0_hat)
    for step, collage in record.collages.items():
        assert torch.equal(collage[hole], record.x0_hat[step][hole]) and torch.equal(collage[known], record.y[known])
        assert torch.allclose(collage[known], given[known], atol=1e-5)
        assert torch.allclose(collage[known], result[known], atol=1e-5)
        assert not torch.allclose(record.x0_hat[step][known], given[known], atol=1e-3)
    module = import_module(f"{pack.__name__}.nodes.host.report.run_pictures")
    drawn = {}
    monkeypatch.setattr(module, "timeline", lambda *images, **options: drawn.update(images=images, **options))
    module.timeline_of(record)
    estimates, collages = drawn["images"]
    assert drawn["names"] == ("estimate", "collage") and sorted(estimates) == sorted(collages)
    if family == "guided_diffusion":
        assert all(torch.equal(collages[step], record.collages[step]) for step in collages)
    else:
        assert all(collages[step].shape == (2, 3, 16, 16) for step in collages)


def test_latents_without_known_colours_need_a_vae(pack_nodes, models):
    _, record = sampled(pack_nodes, models, "sd15", "pictures")
    record.latent_format = types.SimpleNamespace(latent_channels=4, latent_rgb_factors=None)
    with pytest.raises(ValueError, match="vae is not connected"):
        pictures(pack_nodes, record)


def test_a_run_that_stops_early_keeps_what_it_made(pack_nodes, models, tools):
    schedule_ = tools.settings.GuideSchedule(mode="steps", steps=0)
    _, record = sampled(pack_nodes, models, "guided_diffusion", "pictures", schedule=schedule_)
    timeline, gradients, losses = pictures(pack_nodes, record)
    assert timeline.ndim == 4 and losses.ndim == 4 and "guide at least one step" in gradients.message


def test_a_run_without_steps_has_nothing_to_show(pack_nodes, models):
    _, record = sampled(pack_nodes, models, "guided_diffusion", "pictures", denoise=0.0)
    assert "a run without steps" in pictures(pack_nodes, record)[2].message


def test_of_nested_latents_the_first_part_is_kept(pack, tools):
    import zoo_more

    family = "ltxav"
    model = zoo_more.build(family)
    noise, latent, mask = problem(family, shapes=zoo_more.SHAPES)
    records = []
    guided = tools.guidance.apply_gradpaint(model, tools.settings.GuidanceSettings(), records.append, keep=True)
    sample(
        guided, family, "euler", schedule(model, "euler", 4), noise, latent, mask, conditioning=zoo_more.conditioning
    )
    first = latent.unbind()[0].shape
    assert records[0].x0_hat[0].shape == first and records[0].maps[0]["mse"].shape == (first[0], *first[2:])
    assert records[0].mask.shape[-2:] == first[-2:] and records[0].y.shape == first
    hole = records[0].mask == 1
    assert torch.equal(records[0].collages[0].where(hole, 0.0), records[0].x0_hat[0].where(hole, 0.0))
