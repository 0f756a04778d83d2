"""What a differentiated evaluation reaches, and when it is looked at from inside."""

from types import SimpleNamespace

import pytest
import torch
import zoo
from guided_runs import gradients, gradpaint
from sampling import problem, schedule
from torch.nn import Linear


def test_a_guider_with_a_second_model(tools):
    import comfy.samplers

    custom = pytest.importorskip("comfy_extras.nodes_custom_sampler")
    if not hasattr(custom, "Guider_DualModel"):
        pytest.skip("this ComfyUI has no guider with two models")
    first, second = zoo.sd15(0), zoo.sd15(5)
    noise, latent, mask = problem("sd15")
    calls = []
    network = second.model.diffusion_model
    layer = next(module for module in network.modules() if isinstance(module, torch.nn.Linear))
    handle = network.register_forward_pre_hook(lambda *_: calls.append("forward" in vars(layer)))
    try:
        with gradients(tools) as found, torch.inference_mode():
            guider = custom.Guider_DualModel(gradpaint(tools, first), second)
            guider.set_conds(zoo.conditioning("sd15"), zoo.conditioning("sd15", 2))
            guider.set_cfg(3.0)
            guider.sample(
                noise,
                latent,
                comfy.samplers.sampler_object("euler"),
                schedule(first, "euler", 8)[2:4],
                mask,
                disable_pbar=True,
                seed=3,
            )
    finally:
        handle.remove()
    assert calls == [True]  # once: it needed no way round, and its layers were ours
    assert len(found) == 1 and found[0].isfinite().all() and found[0].any()
    assert "forward" not in vars(layer)


def test_the_network_that_is_loaded_twice_counts_once(tools):
    model = Linear(2, 2)
    patcher = SimpleNamespace(model=model, model_patches_models=lambda: [])
    guider = SimpleNamespace(
        inner_model=model, loaded_models=[patcher], model_patcher=patcher, conds={}, model_options={}
    )
    assert tools.module("nodes.host.sampling.run_setup").differentiated_modules(guider) == (model,)


def test_an_evaluation_that_failed_is_looked_at_again(tools):
    differentiate = tools.module("nodes.host.sampling.differentiate")
    network = Linear(2, 2)
    settings = tools.settings.AlignmentSettings()
    made = differentiate.Differentiator(SimpleNamespace(inner_model=network), settings, torch.zeros(1), None)

    def watched() -> bool:
        with made._watch():
            return bool(network._forward_hooks)

    with pytest.raises(MemoryError), made._watch():
        raise MemoryError
    assert watched()
    assert not watched() and not network._forward_hooks
