"""The networks are the original's: golden_latent.json holds numbers computed by CompVis's own code (see its "note")."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from latent_networks import (
    FIRST_STAGES,
    PUBLISHED_FIRST_STAGES,
    PUBLISHED_UNETS,
    TIMESTEPS,
    UNETS,
    filled,
    formula_input,
    shapes_of,
)

from gradpaint.latent_diffusion import ClassEmbedder, LatentDiffusionConfig, LatentUNet, VQModel, trained_sigmas

GOLDEN = json.loads((Path(__file__).parent / "golden_latent.json").read_text())


def pick(tensor, count):
    return tensor.flatten()[torch.linspace(0, tensor.numel() - 1, count).long()]


def check(tensor, values, stats, tolerance=1e-4):
    torch.testing.assert_close(pick(tensor, len(values)), torch.tensor(values), atol=tolerance, rtol=0)
    for value, key in ((tensor.mean(), "mean"), (tensor.std(), "std"), (tensor.abs().max(), "max")):
        assert value.item() == pytest.approx(stats[key], abs=tolerance)


def check_gradient(gradient, golden):
    scale = golden["gradient_std"]
    assert gradient.std().item() == pytest.approx(scale, rel=1e-3)
    torch.testing.assert_close(pick(gradient, 16), torch.tensor(golden["gradient"]), atol=1e-3 * scale, rtol=0)


def evaluate(unet, config, size, dtype=torch.float32):
    x = formula_input("latent", 2, config.in_channels, size, size).to(dtype).requires_grad_()
    context = formula_input("context", 2, 1, config.context_dim) if config.context_dim else None
    out = unet(x, torch.tensor(TIMESTEPS), context=context)
    (gradient,) = torch.autograd.grad((out**2).mean(), x)
    return out.detach(), gradient


@pytest.mark.parametrize("name", UNETS)
def test_unet_equals_the_original(name):
    config, size = UNETS[name]
    golden = GOLDEN["unets"][name]
    out, gradient = evaluate(filled(LatentUNet(config)), config, size)
    assert out.shape == (2, config.out_channels, size, size)
    check(out, golden["output"], golden)
    check_gradient(gradient, golden)


def test_golden_numbers_tell_the_number_of_heads_apart():
    config, size = UNETS["cin256_v2_like"]
    other = type(config)(**(vars(config) | {"num_heads": 2}))
    out, _ = evaluate(filled(LatentUNet(other)), other, size)
    assert (pick(out, 32) - torch.tensor(GOLDEN["unets"]["cin256_v2_like"]["output"])).abs().max() > 1e-3


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_first_stage_equals_the_original(name):
    config, size = FIRST_STAGES[name]
    golden = GOLDEN["first_stages"][name]
    network = filled(VQModel(config))
    latent = network.encode(formula_input("image", 2, 3, size, size).clamp(-1, 1))
    assert latent.shape == (2, config.embed_dim, size // config.downscale, size // config.downscale)
    check(latent, golden["latent"]["values"], golden["latent"])
    z = formula_input("z", 2, config.embed_dim, size // config.downscale, size // config.downscale).requires_grad_()
    image = network.decode(z)
    check(image.detach(), golden["image"]["values"], golden["image"])
    check_gradient(torch.autograd.grad((image**2).mean(), z)[0], golden)  # straight through the quantizer


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_quantizer_takes_the_original_s_codes(name):
    config, size = FIRST_STAGES[name]
    network = filled(VQModel(config))
    z = formula_input("z", 2, config.embed_dim, size // config.downscale, size // config.downscale)
    codes = network.quantize.embedding.weight[GOLDEN["first_stages"][name]["codes"]]
    quantized = network.quantize(z).movedim(1, -1).reshape(-1, config.embed_dim)
    torch.testing.assert_close(quantized[: len(codes)], codes)
    assert torch.equal(z, formula_input("z", *z.shape))  # left alone


@pytest.mark.parametrize("name", [*PUBLISHED_UNETS, *PUBLISHED_FIRST_STAGES])
def test_published_architectures_have_the_same_weights(name):
    if name in PUBLISHED_UNETS:
        network = LatentUNet(PUBLISHED_UNETS[name], device="meta")
    else:
        network = VQModel(PUBLISHED_FIRST_STAGES[name], device="meta")
    shapes, golden = shapes_of(network), GOLDEN["published"][name]
    lines = "\n".join(f"{key} {list(shape)}" for key, shape in sorted(shapes.items()))
    assert len(shapes) == golden["tensors"]
    assert sum(torch.Size(s).numel() for s in shapes.values()) == golden["parameters"]
    assert hashlib.sha256(lines.encode()).hexdigest() == golden["keys"]


@pytest.mark.parametrize("ends", GOLDEN["sigmas"])
def test_noise_levels_are_the_original_s(ends):
    start, end = map(float, ends.split())
    config = LatentDiffusionConfig(
        UNETS["celebahq_like"][0], FIRST_STAGES["vq_f4_like"][0], linear_start=start, linear_end=end
    )
    sigmas = trained_sigmas(config)
    assert sigmas.dtype == torch.float64 and len(sigmas) == 1000 and (sigmas.diff() > 0).all()
    torch.testing.assert_close(
        sigmas[[0, 1, 250, 500, 998, 999]], torch.tensor(GOLDEN["sigmas"][ends], dtype=torch.float64)
    )


def test_half_precision_is_close_and_keeps_norms_wide():
    config, size = UNETS["cin256_v2_like"]
    unet = filled(LatentUNet(config, dtype=torch.float16))
    block = unet.middle_block[1].transformer_blocks[0]
    assert block.attn1.to_q.weight.dtype == torch.float16 and block.norm1.weight.dtype == torch.float32
    out, _ = evaluate(unet, config, size, torch.float16)
    exact, _ = evaluate(filled(LatentUNet(config)), config, size)
    assert out.dtype == torch.float32 and (out - exact).std() < 0.02 * exact.std()


def test_gradient_in_float64_matches_a_finite_difference():
    config, size = UNETS["cin256_v2_like"]
    unet = filled(LatentUNet(config)).double()
    _, gradient = evaluate(unet, config, size, torch.float64)
    x = formula_input("latent", 2, 3, size, size).double()
    context = formula_input("context", 2, 1, config.context_dim)
    step = 1e-6 * torch.randn(x.shape, generator=torch.manual_seed(0), dtype=torch.float64)
    loss = lambda at: (unet(at, torch.tensor(TIMESTEPS), context=context) ** 2).mean()
    change = loss(x + step) - loss(x - step)
    assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=1e-6)


def test_a_conditional_network_needs_its_context():
    config, size = UNETS["cin256_v2_like"]
    unet, x = filled(LatentUNet(config)), formula_input("latent", 2, 3, size, size)
    for context in (None, torch.zeros(2, 1, 7), torch.zeros(2, 24)):
        with pytest.raises(ValueError, match=r"needs a tensor \(batch, tokens, 24\)"):
            unet(x, torch.tensor(TIMESTEPS), context=context)
    # and one without conditioning takes no notice of it
    config, size = UNETS["celebahq_like"]
    unet = filled(LatentUNet(config))
    assert torch.equal(unet(x, torch.tensor(TIMESTEPS), context=torch.ones(2, 1, 7)), unet(x, torch.tensor(TIMESTEPS)))


def test_class_embedder_is_one_token_a_class():
    embedder = ClassEmbedder(5, 24)
    out = embedder(torch.tensor([3, 0]))
    assert out.shape == (2, 1, 24) and torch.equal(out[0, 0], embedder.embedding.weight[3])
