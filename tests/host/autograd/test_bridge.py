"""Gradients through models that the host loaded in inference mode, against plain autograd on an ordinary copy."""

import importlib

import pytest
import torch
import twins
import zoo
from twins import ordinary_copy, relative_error


@pytest.fixture(scope="module")
def autograd(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.autograd.bridge")


@pytest.fixture(scope="module", params=zoo.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def patcher(family, pack, tmp_path_factory):
    import comfy.model_management

    patcher = zoo.build(family, pack, tmp_path_factory.mktemp("zoo"))
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
    return patcher


def arguments(family, patcher, batch=2):
    return twins.arguments(patcher.model, zoo.SHAPES[family], zoo.conditioning(family), batch)


def test_gradient_equals_plain_autograd(family, patcher, autograd):
    import comfy.model_management

    model = patcher.model
    x, sigma, conds = arguments(family, patcher)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))

    def gradient(model, conds):
        leaf = x.clone().requires_grad_(True)
        out = model.apply_model(leaf, autograd.ordinary(sigma), **conds)
        return out.detach(), torch.autograd.grad((out * weight).sum(), leaf)[0]

    with autograd.differentiable([model]), autograd.grad_enabled():
        out, grad = gradient(model, autograd.ordinary(conds))
    twin = ordinary_copy(model)
    with autograd.grad_enabled():
        expected_out, expected = gradient(twin, autograd.ordinary(conds))
    with torch.inference_mode():
        plain = model.apply_model(x, sigma, **conds)
    assert relative_error(out, expected_out) < 1e-5 and relative_error(out, plain) < 1e-5
    assert expected.norm() > 0 and relative_error(grad, expected) < 1e-5
    assert not comfy.model_management.in_training


def test_gradient_equals_finite_differences(family, patcher, autograd):
    model = patcher.model
    x, sigma, conds = arguments(family, patcher, batch=1)
    generator = torch.Generator().manual_seed(5)
    weight, direction = torch.randn(x.shape, generator=generator), torch.randn(x.shape, generator=generator)
    with autograd.differentiable([model]), autograd.grad_enabled():
        leaf = x.clone().requires_grad_(True)
        out = model.apply_model(leaf, autograd.ordinary(sigma), **autograd.ordinary(conds))
        (grad,) = torch.autograd.grad((out * weight).sum(), leaf)
    # Double precision twin: central differences along one direction are exact to about 1e-8 there.
    twin = ordinary_copy(model).double()
    twin.get_dtype_inference = lambda: torch.float64
    if hasattr(twin.diffusion_model, "dtype"):
        twin.diffusion_model.dtype = torch.float64
    with autograd.grad_enabled(), torch.no_grad():
        h, big = (
            1e-5,
            {
                k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
                for k, v in autograd.ordinary(conds).items()
            },
        )
        up, down = (twin.apply_model(x.double() + s * h * direction, sigma.double(), **big).double() for s in (1, -1))
    numeric = ((up - down) * weight).sum() / (2 * h)
    assert abs((grad * direction).sum() - numeric) / abs(numeric) < 1e-3


def test_nothing_stays_on_the_model(family, patcher, autograd):
    model = patcher.model
    before = {name: (p, p.clone()) for name, p in [*model.named_parameters(), *model.named_buffers()]}
    x, sigma, conds = arguments(family, patcher)
    with autograd.differentiable([model]):
        assert any("forward" in vars(m) for m in model.modules())
        with autograd.grad_enabled():
            out = model.apply_model(
                x.clone().requires_grad_(True), autograd.ordinary(sigma), **autograd.ordinary(conds)
            )
            assert out.grad_fn is not None
    assert not any("forward" in vars(m) for m in model.modules())
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert after.keys() == before.keys()
    for name, (tensor, value) in before.items():
        assert after[name] is tensor and torch.equal(tensor, value), name


def test_no_weight_is_saved_for_backward(family, patcher, autograd):
    model = patcher.model
    x, sigma, conds = arguments(family, patcher)
    large = {p.data_ptr() for p in model.parameters() if p.ndim > 1}
    saved = []
    with autograd.differentiable([model]), autograd.grad_enabled():
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
            model.apply_model(x.clone().requires_grad_(True), autograd.ordinary(sigma), **autograd.ordinary(conds))
    assert saved and not large & set(saved)


def test_an_error_inside_leaves_nothing_behind(family, patcher, autograd):
    import comfy.model_management

    with pytest.raises(RuntimeError, match="inside"):
        with autograd.differentiable([patcher.model]), autograd.grad_enabled():
            raise RuntimeError("inside")
    assert not any("forward" in vars(m) for m in patcher.model.modules())
    assert not comfy.model_management.in_training


class TestLayers:
    """Single layers against plain autograd: strides, groups, dilation, ranks, own weight schemes."""

    @pytest.mark.parametrize(
        "make, shape",
        [
            (lambda ops: ops.Linear(6, 5), (2, 3, 6)),
            (lambda ops: ops.Linear(6, 5, bias=False), (6,)),
            (lambda ops: ops.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
            (lambda ops: ops.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9, 8)),
            (lambda ops: ops.Conv2d(4, 6, 3, dilation=2, padding="same"), (2, 4, 9, 8)),
            (lambda ops: ops.Conv3d(2, 3, (1, 3, 3), padding=(0, 1, 1)), (1, 2, 4, 5, 6)),
            (lambda ops: ops.GroupNorm(2, 4), (2, 4, 5)),
            (lambda ops: ops.LayerNorm(6), (2, 3, 6)),
            (lambda ops: ops.LayerNorm(6, elementwise_affine=False), (2, 3, 6)),
            (lambda ops: ops.RMSNorm(6), (2, 3, 6)),
        ],
    )
    @pytest.mark.parametrize("operations", ["disable_weight_init", "manual_cast"])
    def test_layer(self, autograd, operations, make, shape):
        import comfy.ops

        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            layer = make(getattr(comfy.ops, operations))
            for p in layer.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        holder = torch.nn.ModuleList([layer])
        x = torch.randn(shape, generator=generator, requires_grad=True)
        with autograd.differentiable([holder]), autograd.grad_enabled():
            out = layer(x)
            weight = torch.randn(out.shape, generator=generator)
            (grad,) = torch.autograd.grad((out * weight).sum(), x)
        twin = ordinary_copy(holder)[0]
        (expected,) = torch.autograd.grad((twin(x) * weight).sum(), x)
        assert torch.allclose(grad, expected, atol=1e-5)

    def test_own_weight_scheme(self, autograd):
        import comfy.ops

        class Halved(comfy.ops.manual_cast.Linear):
            """Like GGUF: keeps its weight in its own format and expands it in forward."""

            def forward(self, x):
                return torch.nn.functional.linear(x, (self.weight * 2).to(x.dtype), self.bias)

        with torch.inference_mode():
            layer = Halved(6, 5)
            for p in layer.parameters():
                p.normal_(generator=torch.Generator().manual_seed(0))
        x = torch.randn(2, 3, 6, requires_grad=True)
        with autograd.differentiable([torch.nn.ModuleList([layer])]), autograd.grad_enabled():
            (grad,) = torch.autograd.grad(layer(x).sum(), x)
        assert torch.allclose(grad, (2 * layer.weight.clone()).sum(0).expand_as(grad), atol=1e-5)

    def test_in_place_residuals_are_allowed(self, autograd):
        import comfy.ops

        with torch.inference_mode():
            norm, linear = comfy.ops.disable_weight_init.LayerNorm(4), comfy.ops.disable_weight_init.Linear(4, 4)
            for p in [*norm.parameters(), *linear.parameters()]:
                p.normal_(generator=torch.Generator().manual_seed(0))
        x = torch.randn(2, 4, requires_grad=True)
        layers = torch.nn.ModuleList([norm, linear])
        with autograd.differentiable([layers]), autograd.grad_enabled():
            h = x * 1
            h += linear(norm(h))
            out = linear(h)
            out += 1
            (grad,) = torch.autograd.grad(out.sum(), x)
        norm, linear = ordinary_copy(layers)
        h = x + linear(norm(x))
        (expected,) = torch.autograd.grad(linear(h).sum(), x)
        assert torch.allclose(grad, expected, atol=1e-6)
