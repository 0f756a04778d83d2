"""The alignment loss on latents, through decoders made of the host's real classes."""

import dataclasses
import importlib

import pytest
import torch
import zoo
from alignment_runs import alignment_for, guided, made, one_step, settings, write_tiny
from guided_runs import gradients
from sampling import problem, sample, schedule
from tiny_vae import tiny_vae

RATIO = 8


@pytest.mark.parametrize("space, ratio", [("rgb", 1), ("tiny", RATIO), ("vae", RATIO)])
def test_decoders_decode_as_the_host_does(decoders, tools, approx, space, ratio):
    import latent_preview

    model = zoo.sd15()
    alignment, decode = made(decoders, tools, model, space, approx)
    latent, latent_format = torch.randn(2, 4, 16, 16), model.model.latent_format
    with torch.inference_mode():
        image = decode(latent)
    assert image.shape == (2, 3, 16 * ratio, 16 * ratio)
    if space == "vae":
        with torch.inference_mode():
            expected = alignment.vae.decode(latent_format.process_out(latent)).movedim(-1, 1) * 2 - 1
    elif space == "tiny":
        path = str(approx / "taesd_decoder.safetensors")
        preview = latent_preview.TAESDPreviewerImpl(latent_preview.TAESD(None, path, latent_channels=4))
        expected = torch.cat([preview.taesd.decode(one) for one in latent.split(1)]).detach()
    else:
        factors = torch.tensor(latent_format.latent_rgb_factors)
        expected = torch.einsum("bchw,cd->bdhw", latent, factors)
        bias = latent_format.latent_rgb_factors_bias
        expected = expected if bias is None else expected + torch.tensor(bias).view(3, 1, 1)
    inside = (expected.abs() < 0.999) & (image.abs() < 0.999)
    assert inside.float().mean() > 0.1
    assert torch.allclose(image[inside], expected[inside], atol=2e-5)


@pytest.mark.parametrize("space", ["rgb", "tiny", "vae"])
def test_gradient_of_a_run_matches_finite_differences(decoders, tools, approx, space):
    model = zoo.sd15()
    alignment, _ = made(decoders, tools, model, space, approx, lambda_al=50.0)
    grad, record = one_step(tools, model, alignment)
    assert record.backwards == 1 and float(record.losses("alignment")[0]) > 1e-4
    direction = grad / grad.norm()
    noise, latent, mask = problem("sd15", seed=4)
    sigma = float(schedule(model, "euler", 8)[3])

    def loss(shift):
        # The host scales the noise by sigma (denoise is below 1 here): the state moves by `shift` along the gradient.
        records = []
        sample(
            guided(tools, model, alignment, records),
            "sd15",
            "euler",
            schedule(model, "euler", 8)[3:5],
            noise + shift / sigma * direction,
            latent,
            mask,
        )
        return float(records[0].losses("total")[0].double())

    step = 0.3
    numeric = (loss(step) - loss(-step)) / (2 * step)
    rms = float(record.guided[0].gradient_rms)  # of the gradient itself
    assert numeric == pytest.approx(rms * grad[0].numel() ** 0.5, rel=0.03)


def test_the_decoder_changes_the_gradient_and_off_does_not(decoders, tools, approx):
    model = zoo.sd15()
    none, _ = one_step(tools, model, tools.settings.AlignmentSettings(lambda_al=0.0))
    for space in ("auto", "off"):
        same, record = one_step(tools, model, alignment_for(tools, decoders, space))
        assert torch.equal(none, same) and not record.losses("alignment")[0].any()
    write_tiny(approx)
    grads = [none]
    for space in ("latent", "rgb", "tiny"):
        grad, record = one_step(tools, model, alignment_for(tools, decoders, space))
        assert record.losses("alignment")[0].all() and all(
            not torch.allclose(grad, other, rtol=1e-2) for other in grads
        )
        grads.append(grad)


def test_the_users_mask_is_used_at_the_images_resolution(decoders, tools, approx):
    model = zoo.sd15()
    alignment, _ = made(decoders, tools, model, "tiny", approx)
    _, latent, coarse = problem("sd15")
    fine = torch.zeros(1, 1, 128, 128)
    fine[..., 33:97, 41:85] = 1
    seen = []
    for mask in (None, fine):
        wrapper = guided(tools, model, alignment, mask=mask).wrappers
        (wrapper,) = wrapper["sampler_sample"]["gradpaint"]
        decode, fine_mask = decoders.decoder_for(model.model, alignment, latent), wrapper._fine_mask(latent)
        views = tools.run.Differentiator(None, alignment, latent, None, decode, fine_mask)._seen
        seen.append(views.at(coarse, sharp=True, needed=True)[1])
        assert views.at(coarse.clone(), sharp=True, needed=True)[1] is seen[-1]  # nothing is decoded twice
        moved = views.at(coarse.roll(1, -1), sharp=False, needed=True)[1]  # Differential Diffusion
        assert moved.y is seen[-1].y and torch.equal(moved.mask[..., RATIO:], seen[0].mask[..., :-RATIO])
    assert torch.equal(seen[0].mask, coarse.repeat_interleave(RATIO, -1).repeat_interleave(RATIO, -2))
    assert torch.equal(seen[1].mask, fine)


def test_the_ksampler_node_passes_on_its_mask(decoders, tools, pack_nodes, approx, monkeypatch):
    model = zoo.sd15()
    alignment, _ = made(decoders, tools, model, "tiny", approx)
    masks = []
    original = tools.guidance.apply_gradpaint
    module = importlib.import_module(pack_nodes["GradPaintKSampler"].__module__)
    monkeypatch.setattr(
        module, "apply_gradpaint", lambda *args, **kwargs: masks.append(kwargs.get("mask")) or original(*args, **kwargs)
    )
    noise, latent, _ = problem("sd15")
    mask = torch.zeros(1, 96, 96)
    mask[:, 20:60, 30:70] = 1
    values = {
        item.id: item.default
        for item in pack_nodes["GradPaintKSampler"].define_schema().inputs
        if getattr(item, "default", None) is not None
    }
    values |= dict(
        model=model,
        seed=1,
        steps=1,
        cfg=1.0,
        sampler_name="euler",
        scheduler="normal",
        mask=mask,
        positive=zoo.conditioning("sd15"),
        negative=zoo.conditioning("sd15", 2),
        latent_image={"samples": latent},
        alignment=alignment,
    )
    with torch.inference_mode():
        pack_nodes["GradPaintKSampler"].execute(**values)
    assert masks[0].shape == (1, 1, 96, 96) and torch.equal(masks[0][0], mask)


def test_low_memory_gives_the_same_gradient_through_the_vae(decoders, tools, approx, pack):
    memory = importlib.import_module(f"{pack.__name__}.gradpaint.method.settings")
    model = zoo.sd15()
    alignment, _ = made(decoders, tools, model, "vae", approx)
    plain, _ = one_step(tools, model, alignment)
    noise, latent, mask = problem("sd15", seed=4)
    records = []
    with gradients(tools) as frugal_gradients:
        frugal = tools.guidance.apply_gradpaint(
            model, settings(tools, alignment), records.append, memory=memory.MemorySettings(mode=memory.LOW_MEMORY)
        )
        sample(frugal, "sd15", "euler", schedule(model, "euler", 8)[3:5], noise, latent, mask)
    assert torch.allclose(frugal_gradients[0], plain, rtol=1e-4, atol=1e-6 * float(plain.abs().max()))


def test_a_vae_in_half_precision(decoders, tools, approx):
    model = zoo.sd15()
    full, _ = one_step(tools, model, alignment_for(tools, decoders, "vae", tiny_vae(), lambda_al=50.0))
    half, record = one_step(
        tools, model, alignment_for(tools, decoders, "vae", tiny_vae(dtype=torch.bfloat16), lambda_al=50.0)
    )
    assert record.skipped == 0
    assert torch.nn.functional.cosine_similarity(half.flatten(), full.flatten(), dim=0) > 0.9


def test_one_frame_of_a_model_with_a_time_axis(decoders, tools):
    import comfy.latent_formats

    vae, shape = tiny_vae(), (2, 4, 1, 8, 8)
    model = type("Model", (), {"latent_format": comfy.latent_formats.SD15()})
    for space, side in (("rgb", 8), ("vae", 64)):
        decode = decoders.decoder_for(model, alignment_for(tools, decoders, space, vae), torch.zeros(shape))
        with torch.inference_mode():
            assert decode(torch.zeros(shape)).shape == (2, 3, 1, side, side)


def test_the_callers_vae_and_model_do_not_change(decoders, tools, approx):
    model, vae = zoo.sd15(), tiny_vae()
    weights = {name: weight.clone() for name, weight in vae.first_stage_model.state_dict().items()}
    parameters = list(map(id, vae.first_stage_model.parameters()))
    one_step(tools, model, alignment_for(tools, decoders, "vae", vae))
    layers = [module for root in (model.model, vae.first_stage_model) for module in root.modules()]
    assert not any("forward" in vars(layer) for layer in layers) and not model.additional_models
    assert list(map(id, vae.first_stage_model.parameters())) == parameters
    assert all(torch.equal(weights[name], now) for name, now in vae.first_stage_model.state_dict().items())


def test_a_vae_is_loaded_only_where_it_is_used(decoders, tools):
    model, vae = zoo.sd15(), tiny_vae()
    loaded = lambda **changes: guided(
        tools,
        model,
        dataclasses.replace(alignment_for(tools, decoders, "vae", vae), **changes.pop("alignment", {})),
        **changes,
    ).get_additional_models()
    assert loaded() == [vae.patcher]
    assert loaded(gradient="x0") == [] and loaded(alignment={"lambda_al": 0.0}) == []
    assert loaded(alignment={"space": "rgb"}) == []
