"""Offloaded weights: gradients equal those of the resident model, and every buffer is released."""

import importlib
import threading

import loras
import pytest
import torch
import twins
import zoo
from dynamic_vram import dynamic_vram
from offload import offloading
from sampling import problem, sample, schedule
from twins import relative_error


@pytest.fixture(scope="module")
def autograd(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.autograd.bridge")


def plain(patcher, family):
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
        x, sigma, conds = twins.arguments(patcher.model, zoo.SHAPES[family], zoo.conditioning(family), 1)
        return patcher.model.apply_model(x, sigma, **conds)


def gradient(autograd, patcher, family):
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
    x, sigma, conds = twins.arguments(patcher.model, zoo.SHAPES[family], zoo.conditioning(family), 1)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    with autograd.differentiable([patcher.model]), autograd.grad_enabled():
        return twins.gradient(autograd, patcher.model, x, sigma, conds, weight)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_gradient_equals_the_resident_models(family, share, pack, autograd, monkeypatch, tmp_path):
    out, grad = gradient(autograd, zoo.build(family, pack, tmp_path), family)
    with offloading(monkeypatch, share) as state:
        offloaded = zoo.build(family, pack, tmp_path)
        plain(offloaded, family)  # the host makes its buffers in inference mode
        twice = [gradient(autograd, offloaded, family) for _ in range(2)]  # the second with used buffers
    for other_out, other in twice:
        assert torch.equal(other_out, out) and torch.equal(other, grad)
    assert state.taken > 20 and state.released == state.taken


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_runs_equal_those_of_the_resident_model(share, tools, monkeypatch):
    """Guided and plain steps alternate, so guided steps write to buffers that were made in inference mode."""
    noise, latent, mask = problem("sd15")

    def run(model):
        settings = tools.settings.GuidanceSettings(schedule=tools.settings.GuideSchedule(fraction=0.5))
        guided = tools.guidance.apply_gradpaint(model, settings)
        return sample(guided, "sd15", "heun", schedule(model, "heun", 4), noise, latent, mask, cfg=2.0)

    resident = run(zoo.sd15())
    with offloading(monkeypatch, share) as state:
        assert torch.equal(run(zoo.sd15()), resident)
    assert state.taken == state.released > 0


@pytest.mark.parametrize("where", ["forward", "norm", "backward"])
def test_buffers_are_released_after_an_error(tools, where, autograd, monkeypatch):
    """The host releases its buffer when its own forward passes; ours has to wherever it fails."""
    import comfy.model_management

    class Stop(Exception):
        pass

    def stop(*args, **kwargs):
        raise Stop

    with offloading(monkeypatch) as state:
        model = zoo.sd15()
        if where == "forward":  # between two layers
            monkeypatch.setattr(model.model.diffusion_model.middle_block[1], "forward", stop)
        elif where == "norm":
            monkeypatch.setattr(tools.module("nodes.host.autograd.layers"), "alias", stop)
        else:
            monkeypatch.setattr(tools.module("nodes.host.autograd.layers"), "_dense", stop)
        with pytest.raises(Stop):
            gradient(autograd, model, "sd15")
        assert state.taken == state.released > 0 and not comfy.model_management.in_training
        assert not any("forward" in vars(m) for m in model.model.modules() if where != "forward")


@pytest.mark.parametrize("inference", [False, True])
def test_backward_in_a_thread_of_its_own(inference, autograd, monkeypatch):
    """On a GPU autograd runs it in the device's thread, where thread-local modes can differ."""
    _, expected = gradient(autograd, zoo.sd15(), "sd15")
    grads = []
    with offloading(monkeypatch):
        patcher = zoo.sd15()
        with torch.inference_mode():
            import comfy.model_management

            comfy.model_management.load_models_gpu([patcher])
        x, sigma, conds = twins.arguments(patcher.model, zoo.SHAPES["sd15"], zoo.conditioning("sd15"), 1)
        weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
        with autograd.differentiable([patcher.model]), autograd.grad_enabled():
            leaf = x.clone().requires_grad_(True)
            out = patcher.model.apply_model(leaf, autograd.ordinary(sigma), **autograd.ordinary(conds))

            def backward():
                with torch.inference_mode(inference):
                    grads.extend(torch.autograd.grad(out, leaf, weight))

            thread = threading.Thread(target=backward)
            thread.start()
            thread.join()
    assert torch.equal(grads[0], expected)


@pytest.mark.parametrize("with_lora", [False, True])
def test_dynamic_vram(with_lora, autograd, monkeypatch):
    dense = zoo.sd15()
    state = loras.lora(dense)
    if with_lora:
        loras.merge(dense, state, 0.7)
    out, grad = gradient(autograd, dense, "sd15")
    model = loras.loaded(zoo.sd15(), state, 0.7) if with_lora else zoo.sd15()
    x, sigma, conds = twins.arguments(model.model, zoo.SHAPES["sd15"], zoo.conditioning("sd15"), 1)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    with dynamic_vram(monkeypatch, model) as log:
        for _ in range(3):  # weights are where the previous call left them, or evicted
            with autograd.differentiable([model.model]), autograd.grad_enabled():
                other_out, other = twins.gradient(autograd, model.model, x, sigma, conds, weight)
            assert log.pinned == log.unpinned > 0 and log.evicted > 0
            tolerance = 1e-5 if with_lora else 1e-6
            assert relative_error(other_out, out) < tolerance and relative_error(other, grad) < tolerance
            with torch.inference_mode():
                model.model.apply_model(x, sigma, **conds)
