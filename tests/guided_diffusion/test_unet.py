"""The network equals the original: golden.json holds numbers computed by openai/guided-diffusion's own code.

How they were made: that code's UNetModel was built with the settings in networks.py, given the formula's weights and
input, and evaluated in float32 on a CPU; no number there came from this project's network. See "note" in the file.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from networks import LABELS, NETWORKS, PUBLISHED, TIMESTEPS, formula_input, formula_weights, shapes_of

from gradpaint.guided_diffusion import UNet, UNetConfig
from gradpaint.guided_diffusion.unet import timestep_embedding

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def build(config, **kwargs):
    unet = UNet(config, **kwargs).eval()
    unet.load_state_dict(formula_weights(shapes_of(unet)))
    return unet.requires_grad_(False)


def evaluate(unet, size, dtype=torch.float32):
    x = formula_input(size).to(dtype).requires_grad_()
    y = torch.tensor(LABELS) if unet.config.num_classes else None
    out = unet(x, torch.tensor(TIMESTEPS), y)
    (gradient,) = torch.autograd.grad((out**2).mean(), x)
    return out.detach(), gradient


def pick(tensor, count):
    return tensor.flatten()[torch.linspace(0, tensor.numel() - 1, count).long()]


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_original_network(name):
    config, size = NETWORKS[name]
    golden = GOLDEN["networks"][name]
    out, gradient = evaluate(build(config), size)
    assert out.shape == (2, config.out_channels, size, size)
    torch.testing.assert_close(pick(out, 32), torch.tensor(golden["output"]), atol=1e-4, rtol=0)
    for value, key in ((out.mean(), "mean"), (out.std(), "std"), (out.abs().max(), "max")):
        assert value.item() == pytest.approx(golden[key], abs=1e-4)
    scale = golden["gradient_std"]
    assert gradient.std().item() == pytest.approx(scale, rel=1e-3)
    torch.testing.assert_close(pick(gradient, 16), torch.tensor(golden["gradient"]), atol=1e-3 * scale, rtol=0)


def test_golden_numbers_tell_the_attention_orders_apart():
    config, size = NETWORKS["imagenet64_like"]
    other = UNetConfig(64, 6, 1, (1, 2, 3), (2, 4), num_classes=10, use_new_attention_order=False)
    out, _ = evaluate(build(other), size)
    golden = torch.tensor(GOLDEN["networks"]["imagenet64_like"]["output"])
    assert (pick(out, 32) - golden).abs().max() > 1e-2


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_have_the_same_weights(name):
    shapes = shapes_of(UNet(PUBLISHED[name], device="meta"))
    golden = GOLDEN["published"][name]
    lines = "\n".join(f"{key} {list(shape)}" for key, shape in sorted(shapes.items()))
    assert len(shapes) == golden["tensors"]
    assert sum(torch.Size(s).numel() for s in shapes.values()) == golden["parameters"]
    assert hashlib.sha256(lines.encode()).hexdigest() == golden["keys"]


def test_uncond_256_has_the_published_parameter_count():
    assert GOLDEN["published"]["imagenet256_uncond"]["parameters"] == 552_814_086


def test_half_precision_is_close_and_keeps_norms_wide():
    config, size = NETWORKS["fractional"]
    unet = build(config, dtype=torch.float16)
    assert unet.input_blocks[1][0].in_layers[0].weight.dtype == torch.float32
    assert unet.input_blocks[1][0].in_layers[2].weight.dtype == torch.float16
    out, _ = evaluate(unet, size, torch.float16)
    exact, _ = evaluate(build(config), size)
    assert out.dtype == torch.float32
    assert (out - exact).std() < 0.02 * exact.std()


def test_gradient_in_float64_matches_a_finite_difference():
    config, size = NETWORKS["conv_resample"]
    unet = build(config).double()
    _, gradient = evaluate(unet, size, torch.float64)
    x, t = formula_input(size).double(), torch.tensor(TIMESTEPS)
    step = 1e-6 * torch.randn(x.shape, generator=torch.manual_seed(0), dtype=torch.float64)
    change = (unet(x + step, t) ** 2).mean() - (unet(x - step, t) ** 2).mean()
    assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=1e-6)


def test_new_network_predicts_zero_and_trains():
    """The last convolutions start at zero, as in the original."""
    unet = UNet(NETWORKS["fractional"][0])
    x, t = formula_input(16), torch.tensor(TIMESTEPS)
    assert unet(x, t).abs().max() == 0
    ((unet(x, t) - x.repeat(1, 2, 1, 1)) ** 2).mean().backward()
    assert unet.out[2].weight.grad.abs().max() > 0


def test_input_is_left_alone():
    config, size = NETWORKS["pool_no_scale_shift"]
    x = formula_input(size)
    before = x.clone()
    build(config)(x, torch.tensor(TIMESTEPS))
    assert torch.equal(x, before)


def test_timestep_embedding_is_cosines_then_sines():
    emb = timestep_embedding(torch.tensor([0.0, 2.5]), 4)
    want = torch.tensor([[1.0, 1.0, 0.0, 0.0], [2.5, 0.025, 2.5, 0.025]])
    want[1, :2], want[1, 2:] = want[1, :2].cos(), want[1, 2:].sin()
    torch.testing.assert_close(emb, want)
    assert timestep_embedding(torch.tensor([1.0]), 5).shape == (1, 5)


def test_class_conditional_network_needs_labels():
    config, size = NETWORKS["imagenet64_like"]
    with pytest.raises(ValueError, match="10 classes"):
        build(config)(formula_input(size), torch.tensor(TIMESTEPS))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_channels": 40}, "multiple of 32"),
        ({"model_channels": 0}, "model_channels must be a positive integer, got 0"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"attention_ds": (3,)}, r"attention_ds must be among .*\(1, 2\)"),
        ({"num_head_channels": 48}, "set num_head_channels"),
        ({"num_heads": 7}, "num_heads 7 does not divide"),
        ({"dropout": 1.0}, "dropout"),
        ({"num_classes": 0}, "num_classes"),
        ({"resblock_updown": "yes"}, "resblock_updown must be true or false"),
    ],
)
def test_config_refuses(change, message):
    fields = {"model_channels": 32, "out_channels": 3, "num_res_blocks": 1, "channel_mult": (1, 2)}
    with pytest.raises(ValueError, match=message):
        UNetConfig(**(fields | {"attention_ds": (2,), "num_head_channels": 32} | change))
