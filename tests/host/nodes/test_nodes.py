"""The node classes, in the real host: schemas, and what each one executes."""

import logging

import pytest
import torch
from running import NODE_IDS, defaults, run


def test_all_nodes_are_there(pack_nodes):
    assert {key: node.GET_SCHEMA().display_name for key, node in pack_nodes.items()} == NODE_IDS


def kinds(pack, schedule, steps):
    settings = pack.gradpaint.method.settings.GuidanceSettings(schedule=schedule)
    return [kind.value for kind in pack.gradpaint.method.plan.step_kinds(settings, steps)]


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_schema_is_complete(pack_nodes, node_id):
    schema = pack_nodes[node_id].GET_SCHEMA()
    assert schema.category == "GradPaint"
    assert schema.description and schema.search_aliases
    for item in schema.inputs:
        assert item.tooltip, f"{node_id}.{item.id} has no tooltip"
    assert pack_nodes[node_id].GET_NODE_INFO_V1()["name"] == node_id  # what /object_info sends


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_help_page_is_there(pack, node_id):
    from pathlib import Path

    page = Path(pack.__file__).parent / "web" / "docs" / f"{node_id}.md"
    text = page.read_text()
    assert text.startswith(f"# {NODE_IDS[node_id]}")


def test_ksampler_takes_the_hosts_inputs_in_the_hosts_order(comfy_host, pack_nodes):
    ours = [item.id for item in pack_nodes["GradPaintKSampler"].GET_SCHEMA().inputs]
    theirs = list(comfy_host.KSampler.INPUT_TYPES()["required"])
    assert ours[: len(theirs)] == theirs
    info = pack_nodes["GradPaintKSampler"].GET_NODE_INFO_V1()["input"]["required"]
    for name in ("sampler_name", "scheduler"):
        assert list(info[name][1]["options"]) == list(comfy_host.KSampler.INPUT_TYPES()["required"][name][0])


def test_defaults_are_the_librarys(pack, pack_nodes):
    settings = pack.gradpaint.method.settings
    assert run(pack_nodes["GradPaintAlignmentLoss"]) == (settings.AlignmentSettings(),)
    assert run(pack_nodes["GradPaintEarlyStop"]) == (settings.GuideSchedule(),)
    inputs = defaults(pack_nodes["GradPaintKSampler"])
    made = settings.GuidanceSettings(strength=inputs["strength"], normalization=inputs["normalization"])
    assert made == settings.GuidanceSettings()


@pytest.mark.parametrize(
    "mode, guided",
    [
        ("fast (first 50%)", 10),
        ("paper (first 45%)", 9),
        ("full (every step)", 20),
        ("thorough (first 75%)", 15),
        ("fraction", 5),
        ("steps", 3),
    ],
)
def test_early_stop_modes(pack, pack_nodes, mode, guided):
    (schedule,) = run(pack_nodes["GradPaintEarlyStop"], mode=mode, fraction=0.25, steps=3)
    assert kinds(pack, schedule, 20).count("guided") == guided


def test_early_stop_every_second_step(pack, pack_nodes):
    (schedule,) = run(pack_nodes["GradPaintEarlyStop"], mode="full (every step)", every=2)
    assert kinds(pack, schedule, 4)[::2] == ["guided", "guided"]


def test_early_stop_keeps_the_direction_between(pack, pack_nodes):
    (schedule,) = run(pack_nodes["GradPaintEarlyStop"], mode="full (every step)", every=2, between="keep")
    assert kinds(pack, schedule, 4)[1::2] == ["reused", "reused"]


@pytest.mark.parametrize(
    "node_id, newer",
    [
        ("GradPaintKSampler", ["memory", "gradient", "alpha", "keep_record"]),
        ("GradPaintKSamplerAdvanced", ["memory", "gradient", "alpha", "keep_record"]),
        ("GradPaintSampler", ["memory", "gradient", "alpha", "keep_record"]),
        ("GradPaintApply", ["memory", "gradient", "alpha", "keep_record"]),
        ("GradPaintEarlyStop", ["between", "minimum", "maximum", "patience", "tolerance"]),
    ],
)
def test_newer_inputs_come_last_and_may_be_missing(pack_nodes, node_id, newer):
    """Saved workflows list a node's values by position, and prompts of older versions lack the newer ones."""
    info = pack_nodes[node_id].GET_NODE_INFO_V1()["input"]
    assert list(info["optional"])[-len(newer) :] == newer and not set(newer) & set(info["required"])


def test_early_stop_adaptive_takes_its_inputs(pack, pack_nodes):
    node, schedule = pack_nodes["GradPaintEarlyStop"], pack.gradpaint.method.settings.GuideSchedule
    assert run(node, mode="adaptive", fraction=0.1, steps=1) == (schedule.adaptive(),)
    given = {"minimum": 0.3, "maximum": 0.8, "patience": 0.2, "tolerance": 0.1}
    assert run(node, mode="adaptive", every=2, **given) == (schedule(mode="adaptive", every=2, **given),)
    assert run(node, **given) == (schedule(),)


def test_settings_out_of_range_name_input_and_value(pack_nodes):
    with pytest.raises(ValueError, match=r"lambda_al is -1.*between 0"):
        run(pack_nodes["GradPaintAlignmentLoss"], lambda_al=-1)


def mask_kinds(pack):
    return pack.gradpaint.masks.MASK_KINDS


def test_mask_generator_makes_every_kind_with_a_preview(pack, pack_nodes):
    node = pack_nodes["GradPaintMaskGenerator"]
    offered = next(item.options for item in node.GET_SCHEMA().inputs if item.id == "kind")
    assert tuple(offered) == mask_kinds(pack)
    for kind in offered:
        output = node.execute(**{**defaults(node), "kind": kind, "width": 96, "height": 64, "batch_size": 2, "seed": 5})
        (mask,) = output.args
        assert mask.shape == (2, 64, 96) and mask.dtype == torch.float32
        assert 0 < mask.mean() < 1 and set(mask.unique().tolist()) <= {0.0, 1.0}
        assert len(output.ui.as_dict()["images"]) == 2


def test_mask_generator_is_the_librarys_and_counts_seeds_up(pack, pack_nodes):
    (mask,) = run(pack_nodes["GradPaintMaskGenerator"], kind="medium", width=80, height=64, batch_size=2, seed=7)
    assert torch.equal(mask, pack.gradpaint.masks.make_masks("medium", 64, 80, [7, 8])[:, 0])


def test_mask_generator_options_reach_the_library(pack_nodes):
    node = pack_nodes["GradPaintMaskGenerator"]
    (half,) = run(node, kind="half", width=8, height=8, side="bottom")
    assert torch.equal(half[0].sum(1), torch.tensor([0.0] * 4 + [8.0] * 4))
    (outpaint,) = run(node, kind="outpaint", width=16, height=16, right=4)
    assert torch.equal(outpaint[0].sum(0), torch.tensor([0.0] * 12 + [16.0] * 4))
    (border,) = run(node, kind="outpaint", width=16, height=16)
    assert border[0, 2:-2, 2:-2].sum() == 0 and border.sum() == 16 * 16 - 12 * 12
    (covered,) = run(node, kind="coverage", width=64, height=64, coverage=0.5)
    assert covered.mean() == pytest.approx(0.5, abs=0.01)


def test_mask_generator_takes_its_size_from_an_image_or_a_latent(pack_nodes):
    node = pack_nodes["GradPaintMaskGenerator"]
    (mask,) = run(node, kind="box", size_from=torch.zeros(1, 24, 40, 3))
    assert mask.shape == (1, 24, 40)
    (mask,) = run(node, kind="box", size_from={"samples": torch.zeros(2, 4, 16, 12)})
    assert mask.shape == (1, 16, 12)


def test_demo_scene_is_a_held_out_scene(pack, pack_nodes):
    scenes = pack.gradpaint.models.scenes
    (image,) = run(pack_nodes["GradPaintDemoScene"], seed=3, size=32, batch_size=2)
    assert image.shape == (2, 32, 32, 3) and 0 <= image.min() and image.max() <= 1
    expected = torch.from_numpy(scenes.landscape(scenes.HELD_OUT_SEEDS[3], 32)).float() / 255
    assert torch.allclose(image[0], expected, atol=1e-6)


# ---- the sampler, with a tiny random network of the paper's kind


@pytest.fixture(scope="module")
def tiny_model(pack, tmp_path_factory):
    """A MODEL of the host from a random 16x16 guided-diffusion checkpoint, through the pack's own loader."""
    import safetensors.torch

    guided_diffusion = pack.gradpaint.guided_diffusion
    config = guided_diffusion.UNetConfig(
        model_channels=32,
        out_channels=3,
        num_res_blocks=1,
        channel_mult=(1, 2),
        attention_ds=(2,),
        num_head_channels=32,
    )
    torch.manual_seed(0)
    network = guided_diffusion.UNet(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    safetensors.torch.save_file(network.state_dict(), path, {"gradpaint.config": '{"num_head_channels": 32}'})
    with torch.inference_mode():
        return pack.nodes.host.guided_diffusion.load_model(str(path))


@pytest.fixture
def request_inputs(pack, tiny_model):
    conditioning = pack.nodes.host.guided_diffusion.conditioning(None)
    samples = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 5:11] = 1
    common = dict(
        model=tiny_model,
        seed=3,
        steps=4,
        cfg=1.0,
        sampler_name="ddim",
        scheduler="normal",
        denoise=1.0,
        positive=conditioning,
        negative=conditioning,
        latent_image={"samples": samples},
    )
    return common, mask


def sample(node, **inputs):
    with torch.inference_mode():  # as the host runs a prompt
        return run(node, **inputs)[0]


def test_ksampler_keeps_the_known_part_and_the_other_keys(pack_nodes, request_inputs):
    common, mask = request_inputs
    latent = {**common["latent_image"], "batch_index": [0], "someone": "else"}
    before = latent["samples"].clone()
    out = sample(pack_nodes["GradPaintKSampler"], **{**common, "latent_image": latent}, mask=mask)
    assert set(out) == {"samples", "batch_index", "someone", "noise_mask"} and out["someone"] == "else"
    assert out["noise_mask"].shape == (1, 1, 16, 16)
    assert set(latent) == {"samples", "batch_index", "someone"} and torch.equal(latent["samples"], before)
    known = (mask == 0)[:, None].expand(1, 3, 16, 16)
    assert torch.equal(out["samples"][known], before[known])
    assert not torch.allclose(out["samples"][~known], before[~known], atol=0.1)


def test_ksampler_takes_the_latents_mask_and_the_input_precedes_it(pack_nodes, request_inputs):
    common, mask = request_inputs
    node = pack_nodes["GradPaintKSampler"]
    by_input = sample(node, **common, mask=mask)["samples"]
    stored = {**common["latent_image"], "noise_mask": mask[:, None]}
    by_latent = sample(node, **{**common, "latent_image": stored})["samples"]
    assert torch.equal(by_input, by_latent)
    elsewhere = {**common["latent_image"], "noise_mask": torch.ones(1, 1, 16, 16)}
    assert torch.equal(by_input, sample(node, **{**common, "latent_image": elsewhere}, mask=mask)["samples"])


def test_ksampler_guides_and_strength_zero_does_not(pack_nodes, request_inputs):
    common, mask = request_inputs
    node = pack_nodes["GradPaintKSampler"]
    guided = sample(node, **common, mask=mask, strength=5.0)["samples"]
    plain = sample(node, **common, mask=mask, strength=0.0)["samples"]
    assert (guided - plain).abs().max() > 1e-3


@pytest.mark.parametrize("gradient, backwards", [("model", 2), ("cond", 2), ("x0", 0)])
def test_gradient_reaches_the_run(pack, pack_nodes, request_inputs, caplog, gradient, backwards):
    common, mask = request_inputs
    with caplog.at_level(logging.INFO):
        sample(pack_nodes["GradPaintKSampler"], **common, mask=mask, gradient=gradient)
    assert f"4 model evaluations, {backwards} backward" in caplog.text


def test_ksampler_equals_apply_then_the_hosts_ksampler(comfy_host, pack_nodes, request_inputs):
    common, mask = request_inputs
    (alignment,) = run(pack_nodes["GradPaintAlignmentLoss"], lambda_al=0.5)
    (schedule,) = run(pack_nodes["GradPaintEarlyStop"], mode="full (every step)")
    settings = dict(strength=2.0, alpha=0.2, normalization="rms", alignment=alignment, schedule=schedule)
    ours = sample(pack_nodes["GradPaintKSampler"], **common, mask=mask, **settings)["samples"]
    with torch.inference_mode():
        model, _ = run(pack_nodes["GradPaintApply"], model=common["model"], **settings)
        (latent,) = comfy_host.SetLatentNoiseMask().set_mask(common["latent_image"], mask)
        inputs = {**common, "model": model, "latent_image": latent}
        (theirs,) = comfy_host.KSampler().sample(**inputs)
    assert torch.equal(ours, theirs["samples"])


def test_apply_leaves_the_callers_model_alone(comfy_host, pack_nodes, request_inputs):
    common, mask = request_inputs
    (latent,) = comfy_host.SetLatentNoiseMask().set_mask(common["latent_image"], mask)
    plain = lambda: comfy_host.KSampler().sample(**{**common, "latent_image": latent})[0]["samples"]
    with torch.inference_mode():
        before = plain()
        model, _ = run(pack_nodes["GradPaintApply"], model=common["model"])
        assert model is not common["model"]
        sample(pack_nodes["GradPaintKSampler"], **common, mask=mask)
        assert torch.equal(before, plain())


def test_ksampler_repeats_a_small_batch_of_masks_like_the_host(pack_nodes, request_inputs):
    common, mask = request_inputs
    node = pack_nodes["GradPaintKSampler"]
    two = {"samples": common["latent_image"]["samples"].repeat(2, 1, 1, 1)}
    out = sample(node, **{**common, "latent_image": two}, mask=mask)["samples"]
    known = (mask == 0)[:, None].expand(1, 3, 16, 16)
    for i in range(2):
        assert torch.equal(out[i : i + 1][known], two["samples"][i : i + 1][known])
    masks = torch.cat([mask, torch.ones_like(mask)])
    out = sample(node, **{**common, "latent_image": two}, mask=masks)["samples"]
    assert torch.equal(out[:1][known], two["samples"][:1][known])
    assert not torch.equal(out[1:][known], two["samples"][1:][known])


def test_without_a_mask_the_error_says_what_to_do(pack_nodes, request_inputs):
    common, _ = request_inputs
    with pytest.raises(ValueError, match=r"needs a mask.*`mask`.*noise mask"):
        sample(pack_nodes["GradPaintKSampler"], **common)


def test_an_empty_mask_is_refused_with_both_shapes(pack_nodes, request_inputs):
    common, mask = request_inputs
    with pytest.raises(ValueError, match=r"nothing to repaint.*\(1, 16, 16\).*\(1, 3, 16, 16\)"):
        sample(pack_nodes["GradPaintKSampler"], **common, mask=torch.zeros_like(mask))


def test_a_mask_of_impossible_shape_is_refused(pack_nodes, request_inputs):
    common, _ = request_inputs
    with pytest.raises(ValueError, match=r"mask has shape \(1, 16, 16, 3\)"):
        sample(pack_nodes["GradPaintKSampler"], **common, mask=torch.ones(1, 16, 16, 3))


def test_apply_without_a_mask_samples_plainly_and_says_so(comfy_host, pack_nodes, request_inputs, caplog):
    common, _ = request_inputs
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        model, _ = run(pack_nodes["GradPaintApply"], model=common["model"])
        plain = comfy_host.KSampler().sample(**common)[0]["samples"]
        wrapped = comfy_host.KSampler().sample(**{**common, "model": model})[0]["samples"]
    assert torch.equal(plain, wrapped)
    assert any("no noise mask" in record.message for record in caplog.records)


def test_memory_reaches_the_run(pack, pack_nodes, caplog, tmp_path):
    import zoo

    (memory,) = run(pack_nodes["GradPaintMemory"], mode="low memory")
    assert (memory.mode, memory.allow_without_gradient) == ("low memory", False)
    assert run(pack_nodes["GradPaintMemory"])[0].mode == "auto"
    model = zoo.build("sd15", pack, tmp_path)
    positive, negative = zoo.conditioning("sd15"), zoo.conditioning("sd15", seed=2)
    latent = {"samples": torch.zeros(1, 4, 16, 16), "noise_mask": torch.ones(1, 16, 16).tril()}
    pictures = []
    for given in ({}, {"memory": memory}):
        with caplog.at_level(logging.INFO), torch.inference_mode():
            caplog.clear()
            out, _ = run(
                pack_nodes["GradPaintKSampler"],
                model=model,
                steps=2,
                cfg=1.0,
                positive=positive,
                negative=negative,
                latent_image=latent,
                **given,
            )
        pictures.append(out["samples"].clone())
        assert ("all blocks recomputed" in caplog.text) == bool(given)
    assert torch.equal(*pictures)
    applied = run(pack_nodes["GradPaintApply"], model=model, memory=memory)[0]
    (wrapper,) = applied.model_options.get("transformer_options", {}).get("wrappers", applied.wrappers)[
        "sampler_sample"
    ]["gradpaint"]
    assert wrapper.memory is memory
