"""Compiled models are differentiated through their originals; engines and modules without a gradient are rejected."""

import importlib

import pytest
import torch
import zoo
from sampling import problem, sample, schedule

STEPS = 4
BLOCKS = [f"diffusion_model.{name}.transformer_blocks.0" for name in ("input_blocks.1.1", "middle_block.1")]


@pytest.fixture(scope="module")
def modules(tools, pack):
    tools.compiled = importlib.import_module(f"{pack.__name__}.nodes.host.autograd.compiled")
    tools.layers = importlib.import_module(f"{pack.__name__}.nodes.host.autograd.layers")
    return tools


@pytest.fixture
def model(modules):
    torch.compiler.reset()
    yield zoo.sd15()
    torch.compiler.reset()


def guided(modules, model, records=None, **settings):
    made = modules.settings.GuidanceSettings(**settings)
    return modules.guidance.apply_gradpaint(model, made, None if records is None else records.append)


def run(model):
    noise, latent, mask = problem("sd15")
    return sample(model, "sd15", "euler", schedule(model, "euler", STEPS), noise, latent, mask)


class Counting:
    """A backend that counts compilations and calls of the compiled code."""

    def __init__(self):
        self.compilations = self.calls = 0

    def __call__(self, graph, inputs):
        self.compilations += 1

        def call(*args):
            self.calls += 1
            return graph.forward(*args)

        return call


def by_the_hosts_node(model, backend):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = model.clone()
    set_torch_compile_wrapper(model, backend=backend, keys=BLOCKS)
    return model


def by_object_patch(model, backend):
    model = model.clone()
    model.add_object_patch("diffusion_model", torch.compile(model.get_model_object("diffusion_model"), backend=backend))
    return model


def by_block(model, backend):
    model = model.clone()
    for name in BLOCKS:
        model.add_object_patch(name, torch.compile(model.get_model_object(name), backend=backend))
    return model


def by_method(model, backend):
    model.model.diffusion_model.middle_block[1].compile(backend=backend)
    return model


COMPILERS = [by_the_hosts_node, pytest.param(by_object_patch, marks=pytest.mark.slow), by_block, by_method]


@pytest.mark.parametrize("compile", COMPILERS)
def test_compiled_models(modules, model, compile):
    expected, plain = run(guided(modules, model)), run(model)
    backend, records = Counting(), []
    compiled = compile(model, backend)
    assert torch.allclose(run(compiled), plain, atol=1e-5)
    compilations, per_run = backend.compilations, backend.calls
    assert compilations > 0
    out = run(guided(modules, compiled, records))
    assert torch.allclose(out, expected, atol=1e-4) and records[0].backwards == STEPS // 2
    # Plain steps ran the compiled code, guided ones did not, and nothing was recompiled.
    assert backend.compilations == compilations and backend.calls == per_run * 3 // 2
    assert not any(
        "forward" in vars(m)
        for m in model.model.modules()
        if not isinstance(m, torch._dynamo.eval_frame.OptimizedModule)
    )
    assert torch.allclose(run(compiled), plain, atol=1e-5) and backend.compilations == compilations


def test_compiled_by_aot_autograd(modules, model):
    expected = run(guided(modules, model))
    assert torch.allclose(run(guided(modules, by_block(model, "aot_eager"))), expected, atol=1e-4)


@pytest.mark.slow
def test_a_function_wrapper_that_holds_a_compiled_model(modules, model):
    expected = run(guided(modules, model))
    compiled = torch.compile(model.model.apply_model, backend=(backend := Counting()))
    model.set_model_unet_function_wrapper(lambda apply, args: compiled(args["input"], args["timestep"], **args["c"]))
    assert torch.allclose(run(guided(modules, model)), expected, atol=1e-4) and backend.calls > 0


def test_an_error_leaves_the_modules_as_they_were(modules, model):
    compiled = by_block(model, "eager")
    noise, latent, mask = problem("sd15")

    def stop(i, *args):
        if i == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(
            guided(modules, compiled),
            "sd15",
            "euler",
            schedule(model, "euler", STEPS),
            noise,
            latent,
            mask,
            callback=stop,
        )
    block = compiled.get_model_object("diffusion_model.middle_block.1.transformer_blocks.0")._orig_mod
    assert not any(
        "forward" in vars(m)
        for root in (model.model, block)
        for m in root.modules()
        if not isinstance(m, torch._dynamo.eval_frame.OptimizedModule)
    )


def test_old_pytorch_is_rejected(modules, model, monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance")
    with pytest.raises(ValueError, match="take the node that compiles the model .* or update PyTorch"):
        run(guided(modules, by_block(model, "eager")))
    run(guided(modules, model))


# ---- engines and kernels


class TrTUnet:
    """Like ComfyUI_TensorRT's: it is not a module and returns a fresh tensor without a graph."""

    dtype = torch.float32

    def __call__(self, x, timesteps, context, y=None, control=None, transformer_options=None, **kwargs):
        return torch.empty_like(x).copy_(torch.from_numpy(x.detach().numpy() * 0.9))

    def load_state_dict(self, sd, strict=False):
        pass

    def state_dict(self):
        return {}


def without_gradient(x):
    """Like a kernel of a C++ library."""
    return torch.from_numpy(x.detach().numpy() * 0.5)


def test_tensorrt_is_rejected_before_the_first_evaluation(modules, model):
    del model.model.diffusion_model
    model.model.diffusion_model = TrTUnet()
    assert run(model).isfinite().all()
    model.model.diffusion_model.__class__.__call__, call = None, TrTUnet.__call__
    try:
        with pytest.raises(ValueError, match="TensorRT engine.*TrTUnet.*TensorRT Loader.*Load Checkpoint"):
            run(guided(modules, model))
    finally:
        TrTUnet.__call__ = call


def test_an_engine_works_without_a_gradient_through_the_model(modules, model):
    del model.model.diffusion_model
    model.model.diffusion_model = TrTUnet()
    records = []
    out = run(guided(modules, model, records, gradient="x0"))
    assert out.isfinite().all() and records[0].guided and not torch.equal(out, run(model))


@pytest.mark.parametrize(
    "package, what",
    [
        ("nunchaku.models.linear", "Nunchaku"),
        ("torch_tensorrt.runtime", "Torch-"),
        ("custom_nodes.ComfyUI-nunchaku.models", "Nunchaku"),
    ],
)
def test_kernels_of_known_libraries_are_rejected(modules, model, package, what):
    layer = type("SVDQW4A4Linear", (torch.nn.Module,), {"__module__": package})
    model.model.diffusion_model.input_blocks[1][1].extra = layer()
    with pytest.raises(ValueError, match=f"{what}.*SVDQW4A4Linear.*out of this model's path"):
        run(guided(modules, model))


def test_a_kernel_bypassed_by_a_residual_is_detected(modules, model):
    # Nothing fails by itself: the residual connection around the attention keeps a gradient, but a wrong one.
    class Fast(torch.nn.Module):
        def forward(self, x, *args, **kwargs):
            return without_gradient(x)

    block = model.model.diffusion_model.middle_block[1].transformer_blocks[0]
    block.attn1 = Fast()
    assert run(model).isfinite().all()
    with pytest.raises(ValueError, match="test_compiled.Fast has no gradient.*out of this model's path"):
        run(guided(modules, model))
    assert not any(m._forward_hooks for m in model.model.modules())


def test_modules_that_only_read_shapes_need_no_gradient(modules, model):
    class Position(torch.nn.Module):
        def forward(self, x, *args, **kwargs):
            return torch.ones(x.shape) * 0.1

    model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1 = Position()
    assert run(guided(modules, model)).isfinite().all()


@pytest.mark.parametrize("kind", ["foreign", "attention_sage"])
def test_attention_kernel_of_another_pack(modules, model, monkeypatch, kind):
    # Like packs that replace the host's attention globally, and the host's own --use-sage-attention.
    import comfy.ldm.modules.attention as attention

    expected = run(guided(modules, model))

    def fast(q, k, v, heads, mask=None, attn_precision=None, **kwargs):
        return torch.from_numpy(attention.attention_pytorch(q, k, v, heads, mask).detach().numpy())

    fast.__name__ = kind
    monkeypatch.setattr(attention, "optimized_attention", fast)
    monkeypatch.setattr(attention, "optimized_attention_masked", fast)
    assert torch.allclose(run(guided(modules, model)), expected, atol=1e-4)
    assert attention.optimized_attention is fast
