"""Other patches on a guided MODEL: attention, gradients that are cut off, graph replay."""

import pytest
import torch
import zoo
from sampling import problem, sample, schedule


@pytest.fixture(scope="module")
def model(comfy_host):
    return zoo.sd15(0)


def test_attention_without_backward_is_replaced_for_guided_steps_only(tools):
    def attention_sage(*args, **kwargs):
        raise AssertionError("has no backward")

    options = {"transformer_options": {"sample_sigmas": 1}}
    changed = tools.attention.with_differentiable_attention(options)
    q = torch.randn(1, 4, 8)
    override = changed["transformer_options"]["optimized_attention_override"]
    expected = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert torch.allclose(override(attention_sage, q, q, q, 1), expected, atol=1e-6)
    assert "optimized_attention_override" not in options["transformer_options"]


def test_a_patch_that_cuts_the_gradient_off_is_named(tools, model):
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, "euler", 2)
    detached = model.clone()
    detached.set_model_sampler_post_cfg_function(lambda args: args["denoised"].detach())
    guided = tools.guidance.apply_gradpaint(detached, tools.settings.GuidanceSettings())
    with pytest.raises(ValueError, match="GradPaint can't differentiate.*cuts the gradient off.*strength to 0"):
        sample(guided, "sd15", "euler", sigmas, noise, latent, mask)
    assert not any("forward" in vars(m) for m in model.model.modules())


def test_attention_override_of_somebody_else_is_kept_where_it_is_differentiable(tools):
    q = torch.randn(1, 4, 8, requires_grad=True)
    calls = []

    def theirs(function, q, *args, **kwargs):
        calls.append(function.__name__)
        return function(q, *args, **kwargs) * 2

    def without_backward(function, q, *args, **kwargs):
        return torch.zeros_like(q).detach()

    def result(override):
        options = {"transformer_options": {"optimized_attention_override": override}}
        changed = tools.attention.with_differentiable_attention(options)["transformer_options"]
        return changed["optimized_attention_override"](lambda *a, **k: None, q, q, q, 1)

    expected = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert torch.allclose(result(theirs), 2 * expected, atol=1e-5) and calls == ["attention_pytorch"]
    assert torch.allclose(result(without_backward), expected, atol=1e-5)


def test_graph_replay_of_newer_hosts_is_off_during_a_run(tools):
    import comfy.cli_args

    seen = []
    run = lambda: seen.append(getattr(comfy.cli_args.args, "disable_comfy_compiler", "absent"))
    tools.module("nodes.host.sampling.run_setup").without_graph_replay(run)
    comfy.cli_args.args.disable_comfy_compiler = False
    try:
        tools.module("nodes.host.sampling.run_setup").without_graph_replay(run)
        assert comfy.cli_args.args.disable_comfy_compiler is False
    finally:
        del comfy.cli_args.args.disable_comfy_compiler
    assert seen == ["absent", True]
