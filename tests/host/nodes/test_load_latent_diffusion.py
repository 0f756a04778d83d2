"""Load Latent Diffusion Model in the real host: MODEL and VAE compute what the library computes, and GradPaint runs."""

import importlib
import os
import types

import pytest
import torch
import twins
from latent_networks import FIRST_STAGES, UNETS, formula_input, state_dict
from running import run
from safetensors.torch import save_file

from gradpaint.latent_diffusion import load_latent_diffusion

STAGE = FIRST_STAGES["vq_f4_like"][0]
ONE_HEAD = {"num_head_channels": 32}  # one head at the first level, more below


@pytest.fixture(scope="module")
def node(comfy_host, pack):
    return importlib.import_module(f"{pack.__name__}.nodes.load_latent_diffusion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, comfy_host):
    """Small random checkpoints in a folder of their own that the host knows, taken out of its lists afterwards."""
    import folder_paths

    folder = tmp_path_factory.mktemp("ldm")
    contents = {
        "faces.ckpt": state_dict(UNETS["celebahq_like"][0], STAGE, ema=True),
        "null.ckpt": state_dict(UNETS["cin256_v2_like"][0], STAGE, 1001),
        "f8.ckpt": state_dict(UNETS["cin256_like"][0], FIRST_STAGES["vq_f8_like"][0], 5),
    }
    for name, weights in contents.items():
        torch.save({"state_dict": weights}, folder / name)
    save_file(contents["faces.ckpt"] | {"scale_factor": torch.tensor(0.5)}, folder / "scaled.safetensors")
    (folder / "readme.txt").write_text("not a model")
    folder_paths.add_model_folder_path("checkpoints", str(folder))
    yield folder
    folder_paths.folder_names_and_paths["checkpoints"][0].remove(str(folder))


def load(node, name, label=-1, weights="auto", heads=32):
    """Execute the node as the host does: inside inference mode. Names of what comes out."""
    with torch.inference_mode():
        out = node.LoadLatentDiffusion.execute(name, label, weights, heads).args
    return types.SimpleNamespace(**dict(zip(("model", "vae", "positive", "negative"), out)))


def sample(loaded, cfg=1.0, steps=4, seed=0, positive=None, channels=3):
    import comfy.sample

    noise = torch.randn(2, channels, 16, 16, generator=torch.manual_seed(seed))
    with torch.inference_mode():
        return comfy.sample.sample(
            loaded.model,
            noise,
            steps,
            cfg,
            "euler",
            "normal",
            positive or loaded.positive,
            loaded.negative,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=seed,
        )


CASES = [("faces.ckpt", None, 3), ("null.ckpt", 7, 3), ("f8.ckpt", 3, 4), ("scaled.safetensors", None, 3)]


@pytest.mark.parametrize("name, label, channels", CASES)
def test_model_equals_the_library_denoiser(node, folder, name, label, channels):
    import comfy.model_management

    loaded = load(node, name, -1 if label is None else label)
    denoiser = load_latent_diffusion(folder / name, label=label, **ONE_HEAD)
    comfy.model_management.load_models_gpu([loaded.model])
    x = formula_input("latent", 2, channels, 16, 16)
    context = {} if label is None else {"c_crossattn": loaded.positive[0][0].repeat(2, 1, 1)}
    for sigma in (0.05, 1.0, 20.0):
        sigmas = torch.full((2,), sigma)
        with torch.inference_mode():
            in_host = loaded.model.model.apply_model(x, sigmas, **context)
        difference = (in_host - denoiser(x, sigmas)).abs().max().item()
        assert difference < 1e-5 * max(1.0, sigma), (sigma, difference)
    table = loaded.model.get_model_object("model_sampling").sigmas.cpu()
    torch.testing.assert_close(table, denoiser.sigmas.float())


@pytest.mark.parametrize("name, label, channels", CASES)
def test_vae_equals_the_library_codec(node, folder, name, label, channels):
    loaded = load(node, name, -1 if label is None else label)
    denoiser = load_latent_diffusion(folder / name, label=label, **ONE_HEAD)
    image = torch.rand(2, 64, 64, 3, generator=torch.manual_seed(0))
    latent_format = loaded.model.get_model_object("latent_format")
    with torch.inference_mode():
        latent = loaded.vae.encode(image)
        decoded = loaded.vae.decode(latent)
    cell = denoiser.downscale
    assert latent.shape == (2, channels, 64 // cell, 64 // cell) and decoded.shape == image.shape
    assert (loaded.vae.latent_channels, loaded.vae.spacial_compression_decode()) == (channels, cell)
    in_model = denoiser.encode(image.movedim(-1, 1) * 2 - 1)
    torch.testing.assert_close(latent_format.process_in(latent), in_model, atol=1e-5, rtol=0)
    expected = (denoiser.decode(in_model).movedim(1, -1) / 2 + 0.5).clamp(0, 1)
    assert ((decoded - expected).abs() < 1e-4).float().mean() > 0.99  # a cell between two codes may fall either way
    assert (latent_format.latent_channels, latent_format.spacial_downscale_ratio) == (channels, cell)


def test_it_is_no_model_of_pixels(node, folder, tools):
    space = tools.module("nodes.host.latents.space")
    assert not space.is_pixel_space(load(node, "faces.ckpt").model.model)


@pytest.mark.parametrize("name, label", [("faces.ckpt", -1), ("null.ckpt", 7)])
def test_gradient(node, folder, tools, name, label):
    """Against plain autograd on an ordinary copy, and against finite differences."""
    import comfy.model_management

    loaded = load(node, name, label)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([loaded.model])
    model, autograd = loaded.model.model, tools.autograd
    x, sigma, conds = twins.arguments(model, (1, 3, 16, 16), loaded.positive, batch=1)
    weight = torch.randn(x.shape, generator=torch.manual_seed(5))
    twin = twins.ordinary_copy(model)
    with autograd.differentiable([model]), autograd.grad_enabled():
        out, grad = twins.gradient(autograd, model, x, sigma, conds, weight)
    with torch.inference_mode():
        plain = model.apply_model(x, sigma, **conds)
    assert twins.relative_error(out, plain) < 1e-5
    with autograd.grad_enabled():
        _, expected = twins.gradient(autograd, twin, x, sigma, conds, weight)
    assert expected.norm() > 0 and twins.relative_error(grad, expected) < 1e-5
    assert twins.finite_difference_error(autograd, twin, grad, x, sigma, conds, weight) < 1e-3


def test_gradient_through_the_vae_is_the_library_s(node, folder, tools):
    decoders = tools.module("nodes.host.latents.decoders")
    loaded = load(node, "faces.ckpt")
    alignment = decoders.HostAlignment(lambda_al=1.0, space="vae", vae=loaded.vae)
    latent = formula_input("z", 1, 3, 16, 16)
    decode = decoders.decoder_for(loaded.model.model, alignment, latent)
    leaf, other = latent.clone().requires_grad_(), latent.clone().requires_grad_()
    with tools.autograd.differentiable([loaded.vae.first_stage_model]), tools.autograd.grad_enabled():
        (gradient,) = torch.autograd.grad(decode(leaf).square().mean(), leaf)
    library = load_latent_diffusion(folder / "faces.ckpt")
    (expected,) = torch.autograd.grad(library.decode(other).square().mean(), other)
    assert expected.norm() > 0 and twins.relative_error(gradient, expected) < 1e-4


# ---- whole runs


def hole(height=64, width=64):
    mask = torch.zeros(1, height, width)
    mask[:, 18:42, 22:47] = 1
    return mask


@pytest.mark.parametrize(
    "name, label, cfg, space",
    [("faces.ckpt", -1, 1.0, "auto"), ("null.ckpt", 7, 3.0, "auto"), ("faces.ckpt", -1, 1.0, "vae")],
)
def test_gradpaint_from_image_to_image(node, folder, pack_nodes, tools, name, label, cfg, space):
    loaded = load(node, name, label)
    image = torch.rand(1, 64, 64, 3, generator=torch.manual_seed(0))
    with torch.inference_mode():
        latent, stitch, *_ = run(pack_nodes["GradPaintEncode"], vae=loaded.vae, image=image, mask=hole())
        assert latent["samples"].shape == (1, 3, 16, 16)
        alignment = run(pack_nodes["GradPaintAlignmentLoss"], lambda_al=0.5, space=space, vae=loaded.vae)[0]
        out, record = run(
            pack_nodes["GradPaintKSampler"],
            model=loaded.model,
            seed=1,
            steps=4,
            cfg=cfg,
            sampler_name="euler",
            scheduler="normal",
            positive=loaded.positive,
            negative=loaded.negative,
            latent_image=latent,
            alignment=alignment,
        )
        decoded = loaded.vae.decode(out["samples"])
        result, share = run(pack_nodes["GradPaintComposite"], image=decoded, stitch=stitch, blend=0)
    known_cells = torch.nn.functional.max_pool2d(hole()[:, None], 4).expand_as(latent["samples"]) == 0
    assert (out["samples"] - latent["samples"])[known_cells].abs().max() < 1e-5
    known = (hole() == 0)[..., None].expand_as(image)
    assert torch.equal(result[known], image[known]) and result.isfinite().all()
    assert (result - image)[~known].abs().mean() > 0.01
    assert record.backwards > 0 and record.skipped == 0
    seen = [float(step.losses.get("alignment", torch.zeros(1)).max()) for step in record.guided]
    assert seen and all(float(value.max()) > 0 for value in record.losses("mse"))
    assert all(value > 0 for value in seen) if space == "vae" else not any(value > 0 for value in seen)


def test_class_and_null_class(node, folder):
    one, other, none = (load(node, "null.ckpt", label) for label in (1, 4, -1))
    assert (sample(one) - sample(other)).abs().max() > 1e-3
    embedding = torch.load(folder / "null.ckpt")["state_dict"]["cond_stage_model.embedding.weight"]
    assert torch.equal(one.positive[0][0][0, 0], embedding[1])
    for loaded in (one, other, none):
        assert torch.equal(loaded.negative[0][0][0, 0], embedding[1000])
    assert torch.equal(none.positive[0][0], none.negative[0][0])
    assert (sample(one, cfg=3.0) - sample(one)).abs().max() > 1e-3
    # a model that was trained without the empty class: cfg changes nothing but rounding
    f8 = load(node, "f8.ckpt", 2)
    assert torch.equal(f8.positive[0][0], f8.negative[0][0])


def test_wrong_labels_and_conditioning(node, folder):
    with pytest.raises(ValueError, match=r"label must be an integer in 0\.\.4, got 5"):
        load(node, "f8.ckpt", 5)
    with pytest.raises(ValueError, match="none was given"):
        load(node, "f8.ckpt")
    with pytest.raises(ValueError, match="unconditional"):
        load(node, "faces.ckpt", 0)
    with pytest.raises(ValueError, match=r"takes a conditioning of width 24, got one of shape \(1, 77, 768\)"):
        sample(load(node, "null.ckpt", 1), positive=[[torch.ones(1, 77, 768), {}]])
    # a model without classes takes no notice of text
    faces = load(node, "faces.ckpt")
    assert torch.equal(sample(faces, positive=[[torch.ones(1, 77, 768), {"pooled_output": None}]]), sample(faces))


def test_sizes(node, folder, pack_nodes):
    loaded = load(node, "faces.ckpt")
    with pytest.raises(ValueError, match="multiples of 32.*trained at 256.*got 64 x 48"):
        loaded.model.model.apply_model(torch.zeros(1, 3, 12, 16), torch.ones(1))
    # GradPaint Inpaint Encode knows from the VAE what the model takes
    image = torch.rand(1, 50, 70, 3)
    with torch.inference_mode():
        latent, *_ = run(pack_nodes["GradPaintEncode"], vae=loaded.vae, image=image, mask=hole(50, 70))
    assert latent["samples"].shape == (1, 3, 16, 24)
    # and empty latents of the host are brought to the model's channels
    import comfy.sample

    empty = comfy.sample.fix_empty_latent_channels(loaded.model, torch.zeros(1, 4, 8, 8), 8)
    assert empty.shape == (1, 3, 16, 16)


def test_weights_of_the_node(node, folder):
    averaged, last = load(node, "faces.ckpt"), load(node, "faces.ckpt", weights="model")
    key = "out.2.bias"
    first, second = (loaded.model.model.diffusion_model.state_dict()[key] for loaded in (averaged, last))
    torch.testing.assert_close(first, second + 0.01)
    with pytest.raises(ValueError, match="averaged weights are incomplete"):
        load(node, "null.ckpt", 1, weights="ema")
    with pytest.raises(ValueError, match="set num_head_channels"):
        load(node, "faces.ckpt", heads=48)
    assert load(node, "null.ckpt", 1, heads=0).model.model.config.unet.num_head_channels == 32


def test_the_host_can_have_the_model_once_more(node, folder):
    loaded = load(node, "faces.ckpt")
    function, arguments = loaded.model.cached_patcher_init[:2]
    with torch.inference_mode():
        again = function(*arguments, disable_dynamic=True)
    weights = again.model.diffusion_model.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in loaded.model.model.diffusion_model.state_dict().items())


def test_list_and_fingerprint(node, folder):
    names = node.host.checkpoint_names()
    assert {"faces.ckpt", "null.ckpt", "scaled.safetensors"} <= set(names) and "readme.txt" not in names
    fingerprint = node.LoadLatentDiffusion.fingerprint_inputs
    before = fingerprint(ckpt_name="f8.ckpt", class_label=0)
    assert before == fingerprint(ckpt_name="f8.ckpt", class_label=0)
    os.utime(folder / "f8.ckpt", ns=(1, 1))
    assert fingerprint(ckpt_name="f8.ckpt", class_label=0) != before
    assert fingerprint(ckpt_name="gone.ckpt", class_label=0) == "gone.ckpt"
    with pytest.raises(FileNotFoundError, match="gone.ckpt"):
        load(node, "gone.ckpt")


def test_schema(node):
    schema = node.LoadLatentDiffusion.GET_SCHEMA()
    assert schema.node_id == "GradPaintLoadLatentDiffusion"
    assert [i.id for i in schema.inputs] == ["ckpt_name", "class_label", "weights", "head_channels"]
    assert {i.id for i in schema.inputs if i.advanced} == {"weights", "head_channels"}
    assert all(i.tooltip for i in schema.inputs)
    assert [o.get_io_type() for o in schema.outputs] == ["MODEL", "VAE", "CONDITIONING", "CONDITIONING"]
