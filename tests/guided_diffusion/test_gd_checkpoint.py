import json
import pickle

import pytest
import torch
from networks import NETWORKS, PUBLISHED, formula_weights, shapes_of
from safetensors.torch import save_file

from gradpaint.guided_diffusion import UNet, UNetConfig, build_unet, infer_config, load_checkpoint, load_denoiser
from gradpaint.guided_diffusion.checkpoint import unwrap_state_dict

CONFIG, _ = NETWORKS["fractional"]  # needs 32 channels per head
HEADS = {"num_head_channels": 32}


@pytest.fixture(scope="module")
def weights():
    return formula_weights(shapes_of(UNet(CONFIG, device="meta")))


def meta_weights(config):
    return UNet(config, device="meta").state_dict()


# ---- what the weights show


@pytest.mark.parametrize("name", NETWORKS)
def test_infers_every_small_network(name):
    config, _ = NETWORKS[name]
    known = {"num_heads": config.num_heads, "num_head_channels": config.num_head_channels}
    inferred = infer_config(meta_weights(config), use_new_attention_order=config.use_new_attention_order, **known)
    assert inferred.unet == config


@pytest.mark.parametrize("name", PUBLISHED)
def test_infers_published_networks_without_help(name):
    inferred = infer_config(meta_weights(PUBLISHED[name]))
    assert inferred.unet == PUBLISHED[name]
    assert inferred.diffusion_steps == 1000
    assert inferred.image_size == (64 if name == "imagenet64_cond" else 256)
    assert inferred.noise_schedule == ("cosine" if name == "imagenet64_cond" else "linear")


def test_published_imagenet128_has_four_heads():
    config = UNetConfig(256, 6, 2, (1, 1, 2, 3, 4), (4, 8, 16), num_classes=1000, num_heads=4)
    inferred = infer_config(meta_weights(config))
    assert inferred.unet == config and inferred.image_size == 128
    overridden = infer_config(meta_weights(config), num_head_channels=64)
    assert overridden.unet.num_heads is None and overridden.unet.num_head_channels == 64


def test_one_level_network():
    config = UNetConfig(32, 3, 2, (1,), (), num_head_channels=32)
    assert infer_config(meta_weights(config), num_head_channels=32).unet == config


def test_third_of_a_width():
    config = UNetConfig(96, 3, 1, (1 / 3, 1), (), num_head_channels=32)
    assert config.level_channels == (32, 96)
    assert infer_config(meta_weights(config), num_head_channels=32).unet.level_channels == (32, 96)


def test_arguments_win_over_metadata_over_table_over_defaults():
    sd = meta_weights(PUBLISHED["imagenet64_cond"])
    metadata = {"gradpaint.config": json.dumps({"noise_schedule": "linear", "image_size": 32, "a note": "ignored"})}
    inferred = infer_config(sd, metadata, image_size=48)
    assert (inferred.noise_schedule, inferred.image_size) == ("linear", 48)
    assert inferred.unet.use_new_attention_order  # from the table
    assert not infer_config(sd, metadata, use_new_attention_order=False).unet.use_new_attention_order
    assert infer_config(sd, noise_schedule=None).noise_schedule == "cosine"  # None is the same as leaving it out


def test_head_width_that_does_not_divide_says_what_to_set():
    with pytest.raises(ValueError, match="num_head_channels 64 does not divide the 96 channels.*set num_head_channels"):
        infer_config(meta_weights(CONFIG))


@pytest.mark.parametrize(
    "metadata, overrides, message",
    [
        (None, {"heads": 3}, "unknown setting"),
        (None, {"noise_schedule": "sqrt"}, "noise_schedule must be one of"),
        (None, {"diffusion_steps": 0}, "diffusion_steps"),
        ({"gradpaint.config": "{"}, {}, "not JSON"),
        ({"gradpaint.config": "[1]"}, {}, "must be a JSON object"),
        ({"gradpaint.config": '{"image_size": "big"}'}, {}, "image_size must be a positive integer"),
        ({"gradpaint.config": '{"sigma_max": "big"}'}, {}, "sigma_max"),
    ],
)
def test_wrong_settings(metadata, overrides, message):
    with pytest.raises(ValueError, match=message):
        infer_config(meta_weights(CONFIG), metadata, **(HEADS | overrides))


# ---- files


def test_safetensors_with_metadata_runs_as_the_original_weights(tmp_path, weights):
    path = tmp_path / "model.safetensors"
    metadata = {"gradpaint.config": json.dumps(HEADS | {"noise_schedule": "cosine", "diffusion_steps": 200})}
    save_file(weights, path, metadata=metadata)
    checkpoint = load_checkpoint(path)
    assert checkpoint.config.unet == CONFIG
    assert (checkpoint.config.noise_schedule, checkpoint.config.diffusion_steps) == ("cosine", 200)
    assert all(torch.equal(v, weights[k]) for k, v in build_unet(checkpoint).state_dict().items())


def test_half_precision_file_loads_as_float32(tmp_path, weights):
    path = tmp_path / "model.safetensors"
    save_file({k: v.half() for k, v in weights.items()}, path)
    denoiser = load_denoiser(path, **HEADS)
    assert {p.dtype for p in denoiser.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in denoiser.parameters())
    x = denoiser(torch.zeros(1, 3, 16, 16), torch.tensor(1.0))
    assert x.dtype == torch.float32 and x.isfinite().all()


@pytest.mark.parametrize(
    "nest",
    [
        lambda sd: sd,
        lambda sd: {"state_dict": sd, "step": 3},
        lambda sd: {"model": {f"module.{k}": v for k, v in sd.items()}, "optimizer": {"lr": 1.0}},
        lambda sd: {f"_orig_mod.{k}": v for k, v in sd.items()},
        lambda sd: {"model": {k: v + 1 for k, v in sd.items()}, "ema": sd},
        lambda sd: {"model": sd, "ema": {"decay": 0.99, "updates": torch.tensor(3)}},
        lambda sd: {f"model.{k}": v + 1 for k, v in sd.items()} | {f"ema_model.module.{k}": v for k, v in sd.items()},
    ],
    ids=["plain", "state_dict", "module", "compiled", "ema", "ema without weights", "ema prefix"],
)
def test_pt_nestings(tmp_path, weights, nest):
    path = tmp_path / "model.pt"
    torch.save(nest(weights), path)
    loaded = load_checkpoint(path, **HEADS)
    assert loaded.state_dict.keys() == weights.keys()
    assert all(torch.equal(v, weights[k]) for k, v in loaded.state_dict.items())


class Evil:
    def __reduce__(self):
        return print, ("run from a checkpoint",)


def test_pickled_code_is_refused_and_not_run(tmp_path, weights, capsys):
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": weights, "extra": Evil()}, path)
    with pytest.raises(ValueError, match=r"evil\.pt: it holds pickled code.*not loaded.*plain state dict"):
        load_checkpoint(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_truncated_file(tmp_path, weights, suffix, keep):
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pt":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cut.*cannot be read.*damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"<html>not a model</html>", pickle.dumps([1, 2], protocol=2)])
def test_foreign_file(tmp_path, content):
    path = tmp_path / "page.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="page.pt"):
        load_checkpoint(path)


def test_missing_file_and_wrong_suffix(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        load_checkpoint(tmp_path / "nothing.pt")
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match="one of .safetensors, .pt, .pth"):
        load_checkpoint(tmp_path / "model.ckpt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        load_checkpoint(tmp_path / "list.pt")


# ---- other kinds of models


def test_not_such_a_network():
    with pytest.raises(ValueError, match="not a guided-diffusion checkpoint.*encoder.weight"):
        unwrap_state_dict({"encoder.weight": torch.zeros(1)})
    sd = {k: v for k, v in meta_weights(CONFIG).items() if not k.startswith("output_blocks.")}
    with pytest.raises(ValueError, match="classifier"):
        infer_config(sd)
    sd = meta_weights(UNetConfig(32, 6, 1, (1, 2), (), in_channels=6, num_head_channels=32))
    with pytest.raises(ValueError, match="super-resolution"):
        infer_config(sd)
    with pytest.raises(ValueError, match="latent diffusion"):
        unwrap_state_dict({f"model.diffusion_model.{k}": v for k, v in meta_weights(CONFIG).items()})
    with pytest.raises(ValueError, match="input_blocks.0.0.weight is missing"):
        infer_config({"time_embed.0.weight": torch.zeros(4, 1)})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda sd: sd.pop("middle_block.1.norm.weight"), "1 weights are missing.*middle_block.1.norm.weight"),
        (lambda sd: sd.update(extra=torch.zeros(1)), "1 weights are unexpected.*extra"),
        (lambda sd: sd.update({"out.0.weight": torch.zeros(7)}), "another shape.*out.0.weight"),
        (lambda sd: sd.pop("input_blocks.1.0.out_layers.3.weight"), "is missing"),
    ],
)
def test_incomplete_weights(tmp_path, weights, change, message):
    sd = dict(weights)
    change(sd)
    torch.save(sd, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "model.pth", **HEADS)
