"""Load Guided-Diffusion Model in the real host: the MODEL computes what the library's denoiser computes."""

import importlib
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from gradpaint.guided_diffusion import UNet, UNetConfig, load_denoiser

UNCONDITIONAL = UNetConfig(32, 6, 1, (1, 2), (2,), num_head_channels=32)
CONDITIONAL = UNetConfig(32, 3, 1, (1, 2), (2,), num_classes=5, num_head_channels=32, use_new_attention_order=True)
FILES = {"uncond.safetensors": (UNCONDITIONAL, "linear", 1000), "cond.safetensors": (CONDITIONAL, "cosine", 300)}


@pytest.fixture(scope="module")
def node(comfy_host, pack):
    return importlib.import_module(f"{pack.__name__}.nodes.load_guided_diffusion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, comfy_host):
    """Two small random checkpoints in a folder of their own that the host knows, taken out of its lists afterwards."""
    import folder_paths

    folder = tmp_path_factory.mktemp("guided_diffusion")
    for name, (config, schedule, steps) in FILES.items():
        torch.manual_seed(0)
        weights = {k: v + 0.05 * torch.randn(v.shape) for k, v in UNet(config).state_dict().items()}
        settings = {
            "num_head_channels": 32,
            "noise_schedule": schedule,
            "diffusion_steps": steps,
            "image_size": 16,
            "use_new_attention_order": config.use_new_attention_order,
        }
        save_file(weights, folder / name, metadata={"gradpaint.config": json.dumps(settings)})
    torch.save({"state_dict": weights}, folder / "nested.pt")
    (folder / "readme.txt").write_text("not a model")
    known = "guided_diffusion" in folder_paths.folder_names_and_paths
    folder_paths.add_model_folder_path("guided_diffusion", str(folder))
    yield folder
    folder_paths.folder_names_and_paths["guided_diffusion"][0].remove(str(folder))
    if not known:
        del folder_paths.folder_names_and_paths["guided_diffusion"]


def load(node, name, label=-1, schedule="auto", heads=0, order="auto"):
    """Execute the node as the host does: inside inference mode."""
    with torch.inference_mode():
        return node.LoadGuidedDiffusion.execute(name, label, schedule, heads, order).args


def noise(seed=0, size=16):
    return torch.randn(2, 3, size, size, generator=torch.manual_seed(seed))


def sample(model, positive, negative, cfg=1.0, steps=4, seed=0):
    import comfy.sample

    with torch.inference_mode():
        latent = torch.zeros(2, 3, 16, 16)
        return comfy.sample.sample(
            model, noise(seed), steps, cfg, "euler", "normal", positive, negative, latent, disable_pbar=True, seed=seed
        )


@pytest.mark.parametrize("name, label", [("uncond.safetensors", -1), ("cond.safetensors", 3)])
def test_model_equals_the_library_denoiser(node, folder, name, label):
    model, _, _ = load(node, name, label)
    denoiser = load_denoiser(folder / name, label=None if label < 0 else label)
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    x = noise()
    for sigma in (0.05, 1.0, 20.0):
        sigmas = torch.full((2,), sigma)
        y = {} if label < 0 else {"y": torch.tensor([label, label])}
        with torch.inference_mode():
            in_host = model.model.apply_model(x.to(model.load_device), sigmas.to(model.load_device), **y).cpu()
        difference = (in_host - denoiser(x, sigmas)).abs().max().item()
        assert difference < 1e-5 * max(1.0, sigma), (sigma, difference)


def test_table_of_noise_levels_is_the_checkpoint_s(node, folder):
    for name, label in (("uncond.safetensors", -1), ("cond.safetensors", 0)):
        model, _, _ = load(node, name, label)
        table = load_denoiser(folder / name, label=None if label < 0 else label).sigmas
        sampling = model.get_model_object("model_sampling")
        torch.testing.assert_close(sampling.sigmas.cpu(), table.float())
        assert sampling.percent_to_sigma(0.0) > table[-1] and sampling.percent_to_sigma(1.0) == 0.0
        # the host's rule would give sigma_max at 0.5 for a table of 300
        halfway = sampling.percent_to_sigma(0.5)
        assert table[len(table) // 2 - 1] <= halfway <= table[len(table) // 2 + 1]
    linear, _, _ = load(node, "cond.safetensors", 0, schedule="linear")
    assert not torch.equal(linear.get_model_object("model_sampling").sigmas.cpu(), table.float())


def test_plain_host_sampling_runs(node, folder):
    model, positive, negative = load(node, "uncond.safetensors")
    out = sample(model, positive, negative)
    assert out.shape == (2, 3, 16, 16) and out.isfinite().all() and out.std() > 0
    assert torch.equal(out, sample(model, positive, negative))
    # text conditioning of another model does no harm
    assert torch.equal(out, sample(model, [[torch.ones(1, 77, 768), {"pooled_output": None}]], negative))


def test_class_label_reaches_the_network(node, folder):
    model, one, negative = load(node, "cond.safetensors", 1)
    _, other, _ = load(node, "cond.safetensors", 4)
    out = sample(model, one, negative)
    assert out.isfinite().all()
    assert (out - sample(model, other, other)).abs().max() > 1e-3
    # negative carries the same class, so cfg changes nothing but rounding
    torch.testing.assert_close(sample(model, one, negative, cfg=3.0), out, atol=1e-2, rtol=1e-2)


def test_wrong_labels(node, folder):
    with pytest.raises(ValueError, match=r"label must be an integer in 0\.\.4, got 5"):
        load(node, "cond.safetensors", 5)
    with pytest.raises(ValueError, match="none was given"):
        load(node, "cond.safetensors", -1)
    with pytest.raises(ValueError, match="unconditional"):
        load(node, "uncond.safetensors", 0)
    model, positive, _ = load(node, "cond.safetensors", 1)
    with pytest.raises(ValueError, match="connect the conditioning outputs"):
        sample(model, [[torch.zeros(1, 1, 1), {}]], positive)


def test_settings_of_the_node(node, folder):
    legacy, _, _ = load(node, "cond.safetensors", 1, order="legacy")
    assert legacy.model.config.unet.use_new_attention_order is False
    auto, _, _ = load(node, "cond.safetensors", 1)
    assert auto.model.config.unet.use_new_attention_order is True
    wide, _, _ = load(node, "uncond.safetensors", heads=64)
    assert wide.model.config.unet.num_head_channels == 64
    with pytest.raises(ValueError, match="set num_head_channels"):
        load(node, "uncond.safetensors", heads=48)
    nested, _, _ = load(node, "nested.pt", 1, heads=32)
    assert nested.model.config.noise_schedule == "linear"


def test_list_and_fingerprint(node, folder):
    names = node.host.checkpoint_names()
    assert {"uncond.safetensors", "cond.safetensors", "nested.pt"} <= set(names)
    assert "readme.txt" not in names
    assert names[0] == node.host.BUNDLED
    fingerprint = node.LoadGuidedDiffusion.fingerprint_inputs
    before = fingerprint(ckpt_name="nested.pt", class_label=0)
    assert before == fingerprint(ckpt_name="nested.pt", class_label=0)
    os.utime(folder / "nested.pt", ns=(1, 1))
    assert fingerprint(ckpt_name="nested.pt", class_label=0) != before
    assert fingerprint(ckpt_name="gone.pt", class_label=0) == "gone.pt"
    with pytest.raises(FileNotFoundError, match="gone.pt"):
        load(node, "gone.pt")


def test_schema(node):
    schema = node.LoadGuidedDiffusion.GET_SCHEMA()
    assert schema.node_id == "GradPaintLoadGuidedDiffusion"
    assert [i.id for i in schema.inputs][:2] == ["ckpt_name", "class_label"]
    assert {i.id for i in schema.inputs if i.advanced} == {"noise_schedule", "head_channels", "attention_order"}
    assert all(i.tooltip for i in schema.inputs)
    assert [o.get_io_type() for o in schema.outputs] == ["MODEL", "CONDITIONING", "CONDITIONING"]


def test_wrong_size_names_the_sizes(node, folder):
    model, _, _ = load(node, "uncond.safetensors")
    with pytest.raises(ValueError, match="multiples of 2.*trained at 16.*got 16 x 15"):
        model.model.apply_model(torch.zeros(1, 3, 15, 16), torch.ones(1))


def test_preview_shows_the_picture_and_empty_latents_fit(node, folder):
    import comfy.sample
    import latent_preview

    model, _, _ = load(node, "uncond.safetensors")
    latent_format = model.get_model_object("latent_format")
    previewer = latent_preview.Latent2RGBPreviewer(latent_format.latent_rgb_factors)
    picture = torch.zeros(1, 3, 8, 8)
    picture[:, 0] = 1.0
    assert previewer.decode_latent_to_preview(picture).getpixel((3, 3)) == (255, 127, 127)
    assert torch.equal(latent_format.process_in(picture), picture)
    empty = comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, 4, 8, 8), 8)
    assert empty.shape == (1, 3, 64, 64)


def test_bundled_model(node):
    model, positive, negative = load(node, node.host.BUNDLED)
    size = model.model.config.image_size
    assert size >= 64 and model.model.config.unet.num_classes is None
    assert positive[0][1] == {} and negative[0][1] == {}
