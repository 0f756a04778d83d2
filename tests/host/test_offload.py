"""Weights that live elsewhere: gradients equal those of the resident model, and every buffer is given back."""
import importlib

import pytest
import torch
import twins
import zoo
from offload import offloading
from sampling import problem, sample, schedule
from twins import relative_error


@pytest.fixture(scope="module")
def autograd(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.autograd")


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
        twice = [gradient(autograd, offloaded, family) for _ in range(2)]  # the second with used buffers
    for other_out, other in twice:
        assert torch.equal(other_out, out) and torch.equal(other, grad)
    assert state.taken > 20 and state.released == state.taken
