"""Weights as they come: the bridge's gradient is that of dense float32 weights with the same values."""
import importlib

import formats
import pytest
import torch
import twins
import zoo
from sampling import problem, sample, schedule
from twins import relative_error

SHAPE = zoo.SHAPES["sd15"]


@pytest.fixture(scope="module")
def autograd(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.autograd")


def arguments(model, batch=1):
    return twins.arguments(model, SHAPE, zoo.conditioning("sd15"), batch)


def weighting():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))


def bridge(autograd, patcher):
    """(output, gradient) of the loaded model, by the bridge."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
    model = patcher.model
    with autograd.differentiable([model]), autograd.grad_enabled():
        return twins.gradient(autograd, model, *arguments(model), weighting())


def plain(autograd, patcher):
    """(output, gradient) of dense float32 weights, by plain autograd."""
    twin = twins.ordinary_copy(patcher.model)
    with autograd.grad_enabled():
        return twins.gradient(autograd, twin, *arguments(twin), weighting())


def run(tools, model, records=None, sampler="euler", cfg=2.0, **settings):
    """Three guided steps; asserts that they end well and returns the result."""
    noise, latent, mask = problem("sd15")
    full = tools.settings.GuideSchedule.full()
    guided = tools.guidance.apply_gradpaint(model, tools.settings.GuidanceSettings(schedule=full, **settings),
                                            None if records is None else records.append)
    out = sample(guided, "sd15", sampler, schedule(model, sampler, 3), noise, latent, mask, cfg=cfg)
    known = (mask == 0).expand_as(out)
    assert out.isfinite().all() and (out - model.model.process_latent_in(latent))[known].abs().max() < 1e-5
    assert not any("forward" in vars(m) for m in model.model.modules())
    return out


@pytest.mark.parametrize("name", formats.FORMATS)
def test_formats(name, autograd, tools):
    form = formats.FORMATS[name]
    model, dense = formats.build(form)
    out, grad = bridge(autograd, model)
    expected_out, expected = plain(autograd, dense)
    assert expected.norm() > 0 and relative_error(out, expected_out) < form.tolerance
    assert relative_error(grad, expected) < form.tolerance
    records = []
    run(tools, model, records)
    assert records[0].backwards == 3 and records[0].skipped_nudges == 0


@pytest.mark.parametrize("name", [name for name, form in formats.FORMATS.items() if form.quant])
def test_a_quantised_layer_alone(name, autograd):
    """Where the layer rounds its input the whole model's gradient is only near the twin's; the layer's is exact."""
    form = formats.FORMATS[name]
    model, dense = formats.build(form)
    path = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"
    layer, twin = model.model.get_submodule(path), dense.model.get_submodule(path)
    x = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with autograd.differentiable([layer]), autograd.grad_enabled():
        out = layer(x)
        weight = torch.randn_like(out)
        (grad,) = torch.autograd.grad((out * weight).sum(), x)
    assert relative_error(grad, weight @ twin.weight.clone()) < 1e-6
    assert relative_error(out, x @ twin.weight.clone().T) < (0.2 if "int4" in name else 3e-2)
