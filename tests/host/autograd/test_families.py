"""Every model family of `zoo_more`: the bridge's gradient is right, and a GradPaint run works."""

import dataclasses
import importlib

import pytest
import torch
import twins
import zoo_more
from sampling import in_model_units, known_part, problem, sample, schedule
from zoo_more import SINGLE_PRECISION, STARTS_EMPTY, STEP, WRITES_IN_PLACE


@pytest.fixture(scope="module")
def modules(pack):
    class Modules:
        autograd = importlib.import_module(f"{pack.__name__}.nodes.host.autograd.bridge")
        guidance = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.wrapper")
        settings = importlib.import_module(f"{pack.__name__}.gradpaint.method.settings")

    return Modules


@pytest.fixture(scope="module", params=zoo_more.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def patcher(family, pack):
    import comfy.model_management

    patcher = zoo_more.build(family)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
    return patcher


def arguments(family, model, batch):
    shape = zoo_more.SHAPES[family]
    return twins.arguments(model, shape, zoo_more.conditioning(family), batch, mask=twins.hole(shape))


def test_gradient(family, patcher, modules):
    check_gradient(family, patcher, modules)


@pytest.mark.parametrize("changes", [{"mm_layers": 2, "mlp_type": "normal"}, {"mm_layers": 1}])
def test_gradient_of_the_larger_seedvr2(pack, modules, monkeypatch, changes):
    # The host recognizes it by its width, and computes its positions and feed-forward layers differently.
    import comfy.ldm.seedvr.model
    import comfy.model_management

    smaller = zoo_more.FAMILIES["seedvr2"]
    settings = {key: value for key, value in smaller.settings.items() if key != "vid_out_norm"} | changes
    name = "seedvr2_7b"
    monkeypatch.setattr(comfy.ldm.seedvr.model, "SEEDVR2_7B_VID_DIM", settings["vid_dim"])
    monkeypatch.setitem(zoo_more.FAMILIES, name, dataclasses.replace(smaller, settings=settings))
    monkeypatch.setitem(zoo_more.SHAPES, name, smaller.shape)
    patcher = zoo_more.build(name)
    assert patcher.model.diffusion_model.blocks[0].version
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
    check_gradient(name, patcher, modules)


def check_gradient(family, patcher, modules):
    """Against plain autograd on an ordinary copy, and against finite differences."""
    model, autograd = patcher.model, modules.autograd
    x, sigma, conds = arguments(family, model, batch=1)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    twin = twins.ordinary_copy(model)
    in_place = family in WRITES_IN_PLACE
    with autograd.differentiable([model]), autograd.grad_enabled(in_place):
        out, grad = twins.gradient(autograd, model, x, sigma, conds, weight)
    with torch.inference_mode():
        plain = model.apply_model(x, sigma, **conds)
    assert twins.relative_error(out, plain) < 1e-5
    assert not any("forward" in vars(m) for m in model.modules())
    with autograd.grad_enabled(in_place):
        _, expected = twins.gradient(autograd, twin, x, sigma, conds, weight)
    assert expected.norm() > 0 and twins.relative_error(grad, expected) < 1e-5
    assert (
        twins.finite_difference_error(
            autograd, twin, grad, x, sigma, conds, weight, step=STEP.get(family), double=family not in SINGLE_PRECISION
        )
        < 1e-3
    )


def test_sampling(family, patcher, modules):
    noise, latent, mask = problem(family, shapes=zoo_more.SHAPES, empty=family in STARTS_EMPTY)
    run = dict(mask=mask, conditioning=zoo_more.conditioning)
    sigmas = schedule(patcher, "euler", 3)
    options, records = repr(patcher.model_options), []
    before = sample(patcher, family, "euler", sigmas, noise, latent, **run)
    settings = modules.settings.GuidanceSettings(schedule=modules.settings.GuideSchedule.full())
    guided = modules.guidance.apply_gradpaint(patcher, settings, records.append)
    out = sample(guided, family, "euler", sigmas, noise, latent, **run)
    known, expected = known_part(mask, latent), in_model_units(patcher, latent)
    assert out.isfinite().all() and (out - expected)[known].abs().max() < 1e-4
    (record,) = records
    assert (record.steps, record.backwards, record.skipped) == (3, 3, 0)
    assert all(step.gradient_rms.gt(0).all() for step in record.guided) and not torch.allclose(out, before)
    # The caller's model is as it was.
    assert not any("forward" in vars(m) for m in patcher.model.modules())
    assert repr(patcher.model_options) == options and not patcher.wrappers.get("sampler_sample")
    assert torch.equal(sample(patcher, family, "euler", sigmas, noise, latent, **run), before)


@pytest.mark.parametrize("name", ["ltxv", "cosmos_predict2", "wan22_ti2v"])
def test_the_model_sees_one_noise_level(name, modules):
    # The host gives these a clean known region and timesteps scaled by the mask; GradPaint's is as noisy as the hole.
    model = zoo_more.build(name)
    noise, latent, mask = problem(name, shapes=zoo_more.SHAPES)
    seen = []
    model.model.diffusion_model.register_forward_pre_hook(lambda module, args: seen.append(args[1].clone()))
    guided = modules.guidance.apply_gradpaint(model, modules.settings.GuidanceSettings())
    sigmas = schedule(model, "euler", 3)
    sample(guided, name, "euler", sigmas, noise, latent, mask, conditioning=zoo_more.conditioning)
    expected = model.model.model_sampling.timestep(sigmas[:3])
    assert len(seen) >= 3 and {round(float(t.min()), 3) for t in seen} == {round(float(t), 3) for t in expected}
    assert all(t.min() == t.max() for t in seen)
