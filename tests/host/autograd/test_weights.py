"""Weights in every format: the bridge's gradient is that of dense float32 weights with the same values."""

import importlib
from contextlib import nullcontext

import formats
import loras
import pytest
import torch
import twins
import zoo
from offload import offloading
from sampling import problem, sample, schedule
from twins import relative_error

SHAPE = zoo.SHAPES["sd15"]


@pytest.fixture(scope="module")
def autograd(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.autograd.bridge")


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
    """Run two guided steps, check that the known region is kept, and return the result."""
    noise, latent, mask = problem("sd15")
    full = tools.settings.GuideSchedule.full()
    guided = tools.guidance.apply_gradpaint(
        model, tools.settings.GuidanceSettings(schedule=full, **settings), None if records is None else records.append
    )
    out = sample(guided, "sd15", sampler, schedule(model, sampler, 2), noise, latent, mask, cfg=cfg)
    known = (mask == 0).expand_as(out)
    assert out.isfinite().all() and (out - model.model.process_latent_in(latent))[known].abs().max() < 1e-5
    assert not ours(model)
    return out


def ours(model) -> list:
    """Forwards of the bridge that are on the model's layers."""
    forwards = [vars(m).get("forward") for m in model.model.modules()]
    return [f for f in forwards if getattr(f, "__module__", "").endswith(".nodes.host.autograd.layers")]


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
    assert records[0].backwards == 2 and records[0].skipped == 0


@pytest.mark.parametrize("name", [name for name, form in formats.FORMATS.items() if form.quant])
def test_a_single_quantized_layer(name, autograd):
    """If the layer rounds its input the model's gradient is only close to the twin's; the layer's own is exact."""
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


class TestLora:
    def test_patched_into_the_weights(self, autograd, tools):
        base, dense = zoo.sd15(), zoo.sd15()
        state = loras.lora(base)
        model = loras.loaded(base, state, 0.7)
        loras.merge(dense, state, 0.7)
        out, grad = bridge(autograd, model)
        expected_out, expected = plain(autograd, dense)
        assert relative_error(out, expected_out) < 1e-5 and relative_error(grad, expected) < 1e-5
        assert relative_error(plain(autograd, zoo.sd15())[1], expected) > 0.02  # the LoRA matters
        run(tools, model)

    @pytest.mark.parametrize("share", [0.0, 0.5])
    def test_added_to_weights_as_they_are_loaded(self, share, autograd, tools, monkeypatch):
        dense = zoo.sd15()
        state = loras.lora(dense)
        loras.merge(dense, state, 0.7)
        expected_out, expected = plain(autograd, dense)
        with offloading(monkeypatch, share) as offload:
            model = loras.loaded(zoo.sd15(), state, 0.7)
            out, grad = bridge(autograd, model)
            assert model.lowvram_patch_counter() > 10
            run(tools, model)
        assert relative_error(out, expected_out) < 1e-5 and relative_error(grad, expected) < 1e-5
        assert offload.taken == offload.released > 0

    @pytest.mark.parametrize("share", [None, 0.0])
    def test_beside_the_weights(self, share, autograd, tools, monkeypatch):
        """The host's bypass mode: adapters run next to the layers, whose weights do not change."""
        import comfy.sd

        dense = zoo.sd15()
        state = {key: value for key, value in loras.lora(dense).items() if not key.endswith((".diff", ".diff_b"))}
        loras.merge(dense, state, 0.7)
        expected_out, expected = plain(autograd, dense)
        with offloading(monkeypatch, share) if share is not None else nullcontext():
            with torch.inference_mode():
                model = comfy.sd.load_bypass_lora_for_models(zoo.sd15(), None, state, 0.7, 0.0)[0]
            out, grad = bridge(autograd, model)
            assert model.is_injected and not ours(model)
            records = []
            run(tools, model, records)
            assert records[0].skipped == 0
        assert relative_error(out, expected_out) < 1e-5 and relative_error(grad, expected) < 1e-5


def test_a_layer_that_clamps_its_input(autograd):
    """The host's fast fp8 layer writes to its input, which other layers may have saved."""
    import comfy.ops

    with torch.inference_mode():
        layer = comfy.ops.fp8_ops.Linear(4, 3, bias=False, dtype=torch.float8_e4m3fn)
        layer.weight.copy_(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    x = torch.full((2, 5, 4), 30.0, requires_grad=True)
    with autograd.differentiable([torch.nn.ModuleList([layer])]), autograd.grad_enabled():
        square = x * x  # 900: beyond the largest fp8 number
        (grad,) = torch.autograd.grad((layer(square) + (square * square).sum(-1, keepdim=True)).sum(), x)
    assert (square == 900).all()
    expected = (layer.weight.float().clone().sum(0) + 3 * 2 * 900) * 60
    assert torch.allclose(grad, expected.expand_as(grad), rtol=1e-3)


@pytest.mark.parametrize("name", [None, "scaled_e4m3fn"])
def test_mixture_of_experts(name, autograd):
    """The host's bank of quantized experts: no copy of it is made or saved."""
    import comfy.ops

    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        bank = comfy.ops.mixed_precision_ops({}, torch.float32).MoEExperts(3, 32, 16)
        weight = torch.randn(3, 16, 32, generator=generator)
        bank.bias.copy_(torch.randn(3, 16, generator=generator))
        packed = weight if name is None else formats.quantized(weight, formats.FORMATS[name])
        bank.weight = torch.nn.Parameter(packed, requires_grad=False)
    dense = (weight if name is None else packed.dequantize()).clone()
    x = torch.randn(5, 32, generator=generator, requires_grad=True)
    saved = []
    with autograd.differentiable([torch.nn.ModuleList([bank])]), autograd.grad_enabled():
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
            out = [bank.expert_linear(x, i) for i in (2, 0)]
        with bank.bank_resident(x):
            out.append(bank.expert_linear(x, 1))
        grads = [torch.autograd.grad(y.sum(), x)[0] for y in out]
    assert not saved and "expert_linear" not in vars(bank)
    for i, y, grad in zip((2, 0, 1), out, grads):
        assert torch.allclose(y, x @ dense[i].T + bank.bias[i], atol=1e-5)
        assert torch.allclose(grad, dense[i].sum(0).expand_as(grad), atol=1e-5)


class TestGguf:
    """A layer that keeps packed bytes, with its own forward and cast, like city96/ComfyUI-GGUF."""

    @staticmethod
    def ops():
        import comfy.ops

        class Linear(comfy.ops.manual_cast.Linear):
            def pack(self):
                scale = self.weight.abs().amax(1, keepdim=True) / 127
                self.scale = scale
                packed = (self.weight / scale).round().add(128).to(torch.uint8)
                self.weight = torch.nn.Parameter(packed, requires_grad=False)

            def unpacked(self, dtype):
                return (self.weight.to(dtype) - 128) * self.scale.to(dtype)

            def forward_comfy_cast_weights(self, x):
                bias = None if self.bias is None else self.bias.to(x.dtype)
                return torch.nn.functional.linear(x, self.unpacked(x.dtype), bias)

        class LayerNorm(comfy.ops.manual_cast.LayerNorm):
            """Hands out its weight in a buffer that it reuses."""

            def forward_comfy_cast_weights(self, x):
                buffers = [torch.empty_like(p, dtype=x.dtype).copy_(p) for p in (self.weight, self.bias)]
                out = torch.nn.functional.layer_norm(x, self.normalized_shape, *buffers, self.eps)
                for buffer in buffers:
                    buffer.data.fill_(float("nan"))
                return out

        return type("Operations", (comfy.ops.manual_cast,), {"Linear": Linear, "LayerNorm": LayerNorm})

    def models(self):
        with torch.inference_mode():
            packed, dense = zoo.sd15(operations=self.ops()), zoo.sd15()
            for layer, twin in zip(packed.model.modules(), dense.model.modules()):
                if hasattr(layer, "pack"):
                    layer.pack()
                    twin.weight.copy_(layer.unpacked(torch.float32))
        return packed, dense

    def test_gradient(self, autograd, tools):
        packed, dense = self.models()
        out, grad = bridge(autograd, packed)
        expected_out, expected = plain(autograd, dense)
        assert relative_error(out, expected_out) < 1e-5 and relative_error(grad, expected) < 1e-5
        run(tools, packed)

    def test_its_backward_is_one_product(self, pack):
        """The VJP of a layer with its own forward records that forward without computing the product's value."""
        tensors = importlib.import_module(f"{pack.__name__}.nodes.host.autograd.inference_tensors")
        x = torch.randn(3, 8, requires_grad=True)
        with torch.inference_mode():
            weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
        with torch.enable_grad(), tensors.AffineVjp():
            out = torch.nn.functional.linear(x, weight) * 2
        assert (out == 0).all()
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert torch.allclose(grad, 2 * weight.clone().sum(0).expand(3, 8), atol=1e-5)
