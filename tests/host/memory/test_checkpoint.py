"""Recomputed blocks, on every model family: the gradient is the same as without."""

import importlib
from contextlib import contextmanager

import pytest
import torch
import twins
import zoo
import zoo_more
from zoo_more import WRITES_IN_PLACE

CHANGES_BY_ITSELF = {"hidream_o1"}  # its evaluations differ in the last bits, with or without GradPaint


@pytest.fixture(scope="module")
def modules(pack):
    names = dict(
        autograd="autograd.bridge",
        blocks="memory.blocks",
        checkpoint="memory.checkpoint",
        device_memory="memory.device_memory",
        ledger="memory.ledger",
        patch_state="memory.patch_state",
    )
    host = {name: importlib.import_module(f"{pack.__name__}.nodes.host.{path}") for name, path in names.items()}
    return type("Modules", (), host)


def build(family, pack, folder):
    import comfy.model_management

    more = family in zoo_more.FAMILIES
    patcher = zoo_more.build(family) if more else zoo.build(family, pack, folder)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
    shapes, conditioning = (zoo_more.SHAPES, zoo_more.conditioning) if more else (zoo.SHAPES, zoo.conditioning)
    shape = shapes[family]
    return patcher.model, twins.arguments(patcher.model, shape, conditioning(family), 1, mask=twins.hole(shape))


@contextmanager
def checkpointed(modules, model, **options):
    """Install checkpoints on a prepared model; yields (checkpoints, a function that takes the gradient)."""
    checkpoints = modules.checkpoint.Checkpoints(torch.device("cpu"))
    ledger = modules.ledger.Ledger()

    def gradient(in_place, *args, store=None):
        with modules.autograd.grad_enabled(in_place), checkpoints.recording(ledger, store):
            return twins.gradient(modules.autograd, model, *args)

    with modules.autograd.differentiable([model]), checkpoints.installed([model]):
        yield checkpoints, gradient


@pytest.mark.parametrize("family", [*zoo.FAMILIES, *zoo_more.FAMILIES])
def test_gradient_is_the_same(family, pack, tmp_path, modules):
    model, (x, sigma, conds) = build(family, pack, tmp_path)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    with modules.autograd.differentiable([model]), modules.autograd.grad_enabled(family in WRITES_IN_PLACE):
        out, expected = twins.gradient(modules.autograd, model, x, sigma, conds, weight)
    with checkpointed(modules, model) as (checkpoints, gradient):
        for store in (None, modules.device_memory.to_host):
            again, grad = gradient(family in WRITES_IN_PLACE, x, sigma, conds, weight, store=store)
            if family in CHANGES_BY_ITSELF:
                assert twins.relative_error(again, out) < 1e-6 and twins.relative_error(grad, expected) < 1e-6
            else:
                assert torch.equal(again, out) and torch.equal(grad, expected)
            called = [block for block in checkpoints.blocks if block.calls]
            assert called and not any(block.broken for block in called) and any(block.saved for block in called)
    assert not any("forward" in vars(module) for module in model.modules())
