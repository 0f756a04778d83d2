"""GradPaint KSampler and Apply GradPaint on tiny random models: the known region, the mask, settings that arrive."""

import logging

import pytest
import torch
from running import run


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
