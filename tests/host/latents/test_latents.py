"""Latents that are not one tensor of the model's shape: nested video and audio, and a model that reshapes its input.

test_families shows that gradients and plain runs of these families are right.
"""

import importlib
import logging

import pytest
import torch
import zoo_more
from sampling import in_model_units, known_part, nested, packed, problem, sample, schedule

RUN = dict(conditioning=zoo_more.conditioning)


@pytest.fixture(scope="module")
def ltxav(pack):
    return zoo_more.build("ltxav")


def guided(tools, model, records=None, **options):
    settings = tools.settings.GuidanceSettings(schedule=tools.settings.GuideSchedule.full(), **options)
    return tools.guidance.apply_gradpaint(model, settings, None if records is None else records.append)


def masks_of(kind, nested_mask):
    """The noise mask that the host's nodes store.

    It covers both components, the video (Set Latent Noise Mask), the audio alone (Concat AV Latent fills in ones for
    the video), or a first frame (LTXV's image to video).
    """
    video, audio = nested_mask.unbind()
    frame = torch.ones(1, 1, 2, 1, 1)
    frame[:, :, 0] = 0
    return {
        "both": nested_mask,
        "video": video,
        "audio": nested([torch.ones(1, 128, 2, 16, 16), audio]),
        "frame": nested([frame, torch.ones(1, 8, 5, 16)]),
    }[kind]


@pytest.mark.parametrize("kind", ["both", "video", "audio", "frame"])
def test_known_regions_of_video_and_audio_are_kept(tools, ltxav, kind):
    noise, latent, mask = problem("ltxav", shapes=zoo_more.SHAPES)
    mask = masks_of(kind, mask)
    sigmas = schedule(ltxav, "euler", 3)
    video = latent.unbind()[0].numel()
    known, expected = known_part(mask, latent), in_model_units(ltxav, latent)
    assert known[..., :video].any() == (kind != "audio") and known[..., video:].any() == (kind in ("both", "audio"))
    plain = sample(ltxav, "ltxav", "euler", sigmas, noise, latent, mask, **RUN)
    out = sample(guided(tools, ltxav, records := []), "ltxav", "euler", sigmas, noise, latent, mask, **RUN)
    assert out.isfinite().all() and (out - expected)[known].abs().max() < 1e-5
    (record,) = records
    assert (record.steps, record.backwards, record.skipped) == (3, 3, 0)
    # Each component's hole is repainted, and the loss in one moves the other.
    for component in (slice(None, video), slice(video, None)):
        hole = ~known[..., component]
        assert (out - expected)[..., component][hole].abs().mean() > 0.1
        unguided = sample(guided(tools, ltxav, alpha=0.0), "ltxav", "euler", sigmas, noise, latent, mask, **RUN)
        assert (out - unguided)[..., component][hole].abs().mean() > 1e-4
    assert (out - plain)[~known].abs().max() > 0


@pytest.mark.parametrize("gradient", ["model", "cond", "x0"])
@pytest.mark.parametrize("family, batch", [("ltxav", 2), ("seedvr2", 1)])
def test_with_cfg(tools, family, batch, gradient):
    # SeedVR2 distinguishes positive and negative by their position in the batch.
    model = zoo_more.build(family)
    noise, latent, mask = problem(family, batch=batch, shapes=zoo_more.SHAPES)
    sigmas = schedule(model, "euler", 2)
    out = sample(
        guided(tools, model, records := [], gradient=gradient),
        family,
        "euler",
        sigmas,
        noise,
        latent,
        mask,
        cfg=3.0,
        **RUN,
    )
    known = known_part(mask, latent)
    assert out.isfinite().all() and (out - in_model_units(model, latent))[known].abs().max() < 1e-5
    (record,) = records
    assert (record.backwards, record.skipped) == (0 if gradient == "x0" else 2, 0)
    assert all(step.gradient_rms.shape == (batch,) and step.gradient_rms.gt(0).all() for step in record.guided)


def test_both_components_see_one_noise_level(tools, ltxav):
    noise, latent, mask = problem("ltxav", shapes=zoo_more.SHAPES)
    seen = []
    handle = ltxav.model.diffusion_model.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    sigmas = schedule(ltxav, "euler", 3)
    try:
        sample(guided(tools, ltxav), "ltxav", "euler", sigmas, noise, latent, mask, **RUN)
    finally:
        handle.remove()
    assert len(seen) >= 3
    for video, audio in seen:
        assert video.min() == video.max() == audio.min() == audio.max()
    levels = {round(float(video.max()), 3) for video, _ in seen}
    assert levels == {round(float(t), 3) for t in ltxav.model.model_sampling.timestep(sigmas[:3])}


@pytest.mark.parametrize("mode", ["low memory", "lowest memory"])
def test_recomputed_blocks(tools, pack, ltxav, mode):
    memory = importlib.import_module(f"{pack.__name__}.gradpaint.method.settings").MemorySettings
    noise, latent, mask = problem("ltxav", shapes=zoo_more.SHAPES)
    sigmas = schedule(ltxav, "euler", 2)
    plain = sample(guided(tools, ltxav), "ltxav", "euler", sigmas, noise, latent, mask, **RUN)
    records = []
    model = tools.guidance.apply_gradpaint(
        ltxav,
        tools.settings.GuidanceSettings(schedule=tools.settings.GuideSchedule.full()),
        records.append,
        memory(mode=mode),
    )
    assert torch.equal(sample(model, "ltxav", "euler", sigmas, noise, latent, mask, **RUN), plain)
    assert records[0].memory.rungs[-1].startswith("all blocks recomputed")


def test_memory_is_estimated_from_the_components_own_sizes(tools, ltxav, caplog):
    # Packed, each of the video's 128 channels would count as tokens of its own.
    noise, latent, mask = problem("ltxav", shapes=zoo_more.SHAPES)
    with caplog.at_level(logging.INFO):
        sample(guided(tools, ltxav), "ltxav", "euler", schedule(ltxav, "euler", 1), noise, latent, mask, **RUN)
    (line,) = [r.getMessage() for r in caplog.records if "plain backward pass may keep" in r.getMessage()]
    sizes = tools.module("nodes.host.memory.sizes")
    outputs = sizes.layer_outputs(ltxav.model)
    tokens, conditionings = 2 * 16 * 16 + 5 * 16, 2
    assert sizes.format_bytes(conditionings * sizes.SAVED_PER_OUTPUT * outputs * tokens * 4) in line


def test_x0_filters_each_component_separately(tools, ltxav, monkeypatch):
    noise, latent, mask = problem("ltxav", shapes=zoo_more.SHAPES)
    library = tools.module("gradpaint.method.gradient")
    shapes, original = [], library.wiener
    monkeypatch.setattr(library, "wiener", lambda t, a, b: shapes.append(tuple(t.shape)) or original(t, a, b))
    out = sample(
        guided(tools, ltxav, records := [], gradient="x0"),
        "ltxav",
        "euler",
        schedule(ltxav, "euler", 2),
        noise,
        latent,
        mask,
        **RUN,
    )
    assert shapes == [(1, 128, 2, 16, 16), (1, 8, 5, 16)] * 2 and records[0].backwards == 0
    known = known_part(mask, latent)
    assert (out - in_model_units(ltxav, latent))[known].abs().max() < 1e-5


@pytest.mark.parametrize("given", [False, True])
def test_ksampler_node_takes_nested_latents(pack_nodes, ltxav, given):
    _, latent, masks = problem("ltxav", shapes=zoo_more.SHAPES)
    given_mask = torch.zeros(1, 16, 16)
    given_mask[:, 8:] = 1
    settings = {"mask": given_mask} if given else {}
    with torch.inference_mode():
        out, record = (
            pack_nodes["GradPaintKSampler"]
            .execute(
                ltxav,
                3,
                2,
                1.0,
                "euler",
                "normal",
                zoo_more.conditioning("ltxav"),
                zoo_more.conditioning("ltxav", seed=2),
                {"samples": latent, "noise_mask": masks},
                1.0,
                0.2,
                "rms",
                **settings,
            )
            .args
        )
    assert record.steps == 2
    used = nested([given_mask[:, None], masks.unbind()[1]]) if given else masks  # the audio keeps its own
    known = known_part(used, latent)
    moved = (packed(out["samples"]) - packed(latent)).abs()
    assert moved[known].max() < 1e-5 and moved[~known].mean() > 0.1


def test_an_empty_nested_mask_is_rejected(pack):
    convert = importlib.import_module(f"{pack.__name__}.nodes.host.latents.convert")
    latent = nested([torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 5, 16)])
    with pytest.raises(ValueError, match="nothing to repaint"):
        convert.masked_latent({"samples": latent, "noise_mask": nested([torch.zeros(1, 1, 8, 8)] * 2)})


def test_a_model_that_only_starts_from_empty_latents_is_rejected(tools, pack):
    name = "hunyuan_image_refiner"
    model = zoo_more.build(name)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 5:11] = 1
    noise, latent = torch.randn(1, 32, 1, 16, 16), torch.randn(1, 32, 1, 16, 16)
    sigmas = schedule(model, "euler", 2)
    with pytest.raises(RuntimeError, match="must match the size"):  # the host itself can't
        sample(model, name, "euler", sigmas, noise, latent, mask, **RUN)
    with pytest.raises(ValueError, match="starts from an empty latent only"):
        sample(guided(tools, model), name, "euler", sigmas, noise, latent, mask, **RUN)
