"""What is read from complete checkpoints: shapes, schedule, averaged weights; and what is said of other files."""

import json
import pickle
import sys
import types

import pytest
import torch
from latent_networks import (
    FIRST_STAGES,
    PUBLISHED_FIRST_STAGES,
    PUBLISHED_UNETS,
    UNETS,
    filled,
    formula_input,
    shapes_of,
    state_dict,
)
from safetensors.torch import save_file

from gradpaint.guided_diffusion import load_checkpoint as load_guided
from gradpaint.latent_diffusion import LatentUNet, VQModel, is_latent_diffusion, load_checkpoint, load_latent_diffusion
from gradpaint.latent_diffusion.checkpoint import infer_config

UNET, STAGE = UNETS["celebahq_like"][0], FIRST_STAGES["vq_f4_like"][0]
CONDITIONAL = UNETS["cin256_v2_like"][0]
ONE_HEAD = {"num_heads": 1}


@pytest.fixture(scope="module")
def weights():
    return state_dict(UNET, STAGE)


def meta(network, config):
    return network(config, device="meta").state_dict()


# ---- what the weights tell


@pytest.mark.parametrize(
    "unet, stage, classes",
    [("ldm-celebahq-256", "vq-f4", None), ("cin256-v2", "vq-f4", 1001), ("cin256", "vq-f8", 1000)],
)
def test_infers_published_models_without_help(unet, stage, classes):
    embedder = {} if classes is None else {"embedding.weight": torch.empty(classes, 512, device="meta")}
    config = infer_config(
        meta(LatentUNet, PUBLISHED_UNETS[unet]), meta(VQModel, PUBLISHED_FIRST_STAGES[stage]), embedder
    )
    assert config.unet == PUBLISHED_UNETS[unet] and config.first_stage == PUBLISHED_FIRST_STAGES[stage]
    assert (config.num_classes, config.null_label) == (classes, 1000 if classes == 1001 else None)
    assert (config.image_size, config.timesteps, config.linear_start, config.linear_end) == (256, 1000, 0.0015, 0.0195)
    assert config.scale_factor == 1.0
    assert (config.first_stage.downscale, config.size_multiple) == ((8, 32) if stage == "vq-f8" else (4, 32))


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_infers_every_small_first_stage(name):
    stage, _ = FIRST_STAGES[name]
    unet = LatentUNet(type(UNET)(**(vars(UNET) | {"in_channels": stage.embed_dim, "out_channels": stage.embed_dim})))
    assert infer_config(unet.state_dict(), meta(VQModel, stage), {}).first_stage == stage


@pytest.mark.parametrize("betas", [(0.0015, 0.0195), (0.0015, 0.0155), (0.00085, 0.012)])
def test_schedule_is_read_from_the_file(tmp_path, betas):
    torch.save({"state_dict": state_dict(UNET, STAGE, betas=betas)}, tmp_path / "model.ckpt")
    config = load_checkpoint(tmp_path / "model.ckpt").config
    assert (config.linear_start, config.linear_end) == betas
    overridden = load_checkpoint(tmp_path / "model.ckpt", linear_end=0.02, timesteps=500).config
    assert (overridden.linear_start, overridden.linear_end, overridden.timesteps) == (betas[0], 0.02, 500)


def test_scale_factor_is_read_from_the_file(tmp_path, weights):
    save_file(weights | {"scale_factor": torch.tensor(0.5)}, tmp_path / "model.safetensors")
    save_file(weights, tmp_path / "plain.safetensors")
    half, plain = (
        load_latent_diffusion(tmp_path / "model.safetensors"),
        load_latent_diffusion(tmp_path / "plain.safetensors"),
    )
    image = formula_input("image", 1, 3, 32, 32).clamp(-1, 1)
    torch.testing.assert_close(half.encode(image), 0.5 * plain.encode(image))
    torch.testing.assert_close(half.decode(half.encode(image)), plain.decode(plain.encode(image)))


def test_averaged_weights_are_preferred(tmp_path):
    torch.save({"state_dict": state_dict(UNET, STAGE, ema=True)}, tmp_path / "model.ckpt")
    last = filled(LatentUNet(UNET)).state_dict()
    for asked, expected, shift in (("auto", "ema", 0.01), ("ema", "ema", 0.01), ("model", "model", 0.0)):
        checkpoint = load_checkpoint(tmp_path / "model.ckpt", asked)
        assert checkpoint.weights == expected
        assert all(torch.equal(value, last[name] + shift) for name, value in checkpoint.unet.items())
        assert checkpoint.unet.keys() == last.keys()


def test_averaged_weights_that_are_not_there(tmp_path, weights):
    torch.save(weights, tmp_path / "model.ckpt")
    assert load_checkpoint(tmp_path / "model.ckpt").weights == "model"
    with pytest.raises(ValueError, match='averaged weights are incomplete.*weights "model"'):
        load_checkpoint(tmp_path / "model.ckpt", "ema")
    with pytest.raises(ValueError, match="weights must be one of.*'best'"):
        load_checkpoint(tmp_path / "model.ckpt", "best")
    some = state_dict(UNET, STAGE, ema=True)
    del some["model_ema.diffusion_modelout2bias"]
    torch.save(some, tmp_path / "some.ckpt")
    with pytest.raises(ValueError, match="1 are missing, the first: model_ema.diffusion_modelout2bias"):
        load_checkpoint(tmp_path / "some.ckpt")


def test_half_precision_file_and_network(tmp_path):
    weights = state_dict(CONDITIONAL, STAGE, 5)
    save_file({k: v.half() for k, v in weights.items()}, tmp_path / "model.safetensors")
    denoiser = load_latent_diffusion(tmp_path / "model.safetensors", dtype=torch.float16, label=2, **ONE_HEAD)
    assert denoiser.config.linear_start == pytest.approx(0.0015, rel=1e-3)  # the table is in half precision, too
    assert denoiser.unet.middle_block[1].proj_in.weight.dtype == torch.float16
    assert {p.dtype for p in denoiser.first_stage.parameters()} == {torch.float32}
    exact = load_latent_diffusion(tmp_path / "model.safetensors", label=2, **ONE_HEAD)
    x = formula_input("latent", 1, 3, 16, 16)
    out = denoiser(x, 1.0)
    assert out.dtype == torch.float32 and (out - exact(x, 1.0)).std() < 0.02


# ---- settings


CONFIG = {
    "model": {
        "params": {
            "linear_start": 0.001,
            "linear_end": 0.01,
            "timesteps": 1000,
            "scale_factor": 0.25,
            "unet_config": {"params": {"num_heads": 2, "num_head_channels": -1, "use_checkpoint": True}},
            "first_stage_config": {"params": {"ddconfig": {"resolution": 128}}},
        }
    }
}


def test_config_wins_over_the_file_and_arguments_over_the_config(tmp_path, weights):
    torch.save(weights, tmp_path / "model.ckpt")
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))  # JSON is YAML
    for config in (CONFIG, tmp_path / "config.yaml", str(tmp_path / "config.yaml")):
        read = load_checkpoint(tmp_path / "model.ckpt", config=config).config
        assert (read.linear_start, read.linear_end, read.scale_factor, read.image_size) == (0.001, 0.01, 0.25, 128)
        assert read.unet.num_heads == 2
    read = load_checkpoint(tmp_path / "model.ckpt", config=CONFIG, num_head_channels=16, image_size=None).config
    assert (read.unet.num_heads, read.unet.num_head_channels, read.image_size) == (None, 16, 128)


def test_metadata_of_a_safetensors_file(tmp_path, weights):
    save_file(weights, tmp_path / "model.safetensors", {"gradpaint.config": json.dumps({"image_size": 64, "note": 1})})
    assert load_checkpoint(tmp_path / "model.safetensors").config.image_size == 64


@pytest.mark.parametrize(
    "config, message",
    [
        ({}, "must hold model.params"),
        ({"model": {"params": {"parameterization": "x0"}}}, "parameterization 'x0'; only 'eps'"),
        ({"model": {"params": {"beta_schedule": "cosine"}}}, "beta_schedule 'cosine'"),
    ],
)
def test_wrong_configs(tmp_path, weights, config, message):
    torch.save(weights, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "model.ckpt", config=config)


def test_config_files_that_are_none(tmp_path, weights):
    torch.save(weights, tmp_path / "model.ckpt")
    with pytest.raises(FileNotFoundError, match="no such config"):
        load_checkpoint(tmp_path / "model.ckpt", config=tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("{a: [")
    with pytest.raises(ValueError, match="bad.yaml: not a YAML file"):
        load_checkpoint(tmp_path / "model.ckpt", config=tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"heads": 3}, "unknown setting"),
        ({"num_head_channels": 48}, "set num_head_channels"),
        ({"timesteps": 1}, "at least 2 steps"),
        ({"linear_start": 0.5}, "must not fall"),
        ({"linear_end": 1.5}, "linear_end must be between 0 and 1, got 1.5"),
        ({"scale_factor": 0}, "scale_factor must be a positive number, got 0"),
        ({"image_size": "big"}, "image_size must be a positive integer"),
    ],
)
def test_wrong_settings(tmp_path, weights, overrides, message):
    torch.save(weights, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "model.ckpt", **overrides)


# ---- files


def test_a_training_checkpoint_of_lightning_loads(tmp_path, weights, monkeypatch):
    """Lightning stores its callback's class as a key, and NumPy's scalars; both are skipped, not imported."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"epoch": 3, "callbacks": {callback: {"best": None}}, "state_dict": weights}, tmp_path / "model.ckpt")
    for name in (module.__name__, "pytorch_lightning.callbacks", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name)
    assert load_checkpoint(tmp_path / "model.ckpt").config.unet == UNET


class Evil:
    def __reduce__(self):
        return print, ("run from a checkpoint",)


def test_pickled_code_is_refused_and_not_run(tmp_path, weights, capsys):
    torch.save({"state_dict": weights, "extra": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"evil\.ckpt: it holds pickled code.*not loaded"):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"<html>not a model</html>", pickle.dumps([1, 2], protocol=2)])
def test_foreign_file(tmp_path, content):
    (tmp_path / "page.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="page.ckpt"):
        load_checkpoint(tmp_path / "page.ckpt")
    with pytest.raises(FileNotFoundError, match="none.ckpt"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match="one of .ckpt, .safetensors, .pt, .pth"):
        load_checkpoint(tmp_path / "model.bin")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w.clear(), "not a latent diffusion checkpoint"),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith("first_stage")], "the UNet alone; use the complete"),
        (lambda w: w.pop("first_stage_model.quantize.embedding.weight"), "no VQ autoencoder.*Load Checkpoint"),
        (lambda w: w.pop("first_stage_model.encoder.conv_in.weight"), "incomplete: encoder.conv_in.weight is missing"),
        (lambda w: w.pop("first_stage_model.encoder.conv_in.bias"), "1 weights are missing.*encoder.conv_in.bias"),
        (lambda w: w.pop("model.diffusion_model.middle_block.1.norm.bias"), "1 weights are missing"),
        (
            lambda w: w.update({"cond_stage_model.transformer.weight": torch.zeros(2, 2)}),
            "conditioned on something else",
        ),
        (lambda w: w.update({"betas": torch.linspace(1e-4, 0.02, 1000)}), "not linear in their square root"),
    ],
)
def test_other_kinds_and_incomplete_weights(tmp_path, weights, change, message):
    changed = dict(weights)
    change(changed)
    torch.save({"state_dict": changed}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=rf"model\.ckpt: .*{message}"):
        load_checkpoint(tmp_path / "model.ckpt")


def test_a_loss_in_the_first_stage_is_left_out(tmp_path, weights):
    torch.save(weights | {"first_stage_model.loss.logvar": torch.zeros(1)}, tmp_path / "model.ckpt")
    assert load_checkpoint(tmp_path / "model.ckpt").first_stage.keys() == shapes_of(VQModel(STAGE)).keys()


def test_kind_of_a_file(tmp_path, weights):
    torch.save({"state_dict": weights}, tmp_path / "model.pt")
    save_file(weights, tmp_path / "model.safetensors")
    save_file({"time_embed.0.weight": torch.zeros(2, 2)}, tmp_path / "pixels.safetensors")
    torch.save({"time_embed.0.weight": torch.zeros(2, 2)}, tmp_path / "pixels.pt")
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    kinds = {path.name: is_latent_diffusion(path) for path in tmp_path.iterdir()}
    assert [name for name, latent in sorted(kinds.items()) if latent] == ["model.pt", "model.safetensors"]
    assert len(kinds) == 5 and is_latent_diffusion("anything.ckpt") and not is_latent_diffusion("photo.png")


def test_the_guided_diffusion_loader_sends_to_this_one(tmp_path, weights):
    for content in (weights, {"state_dict": weights}):
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(ValueError, match="a latent diffusion checkpoint; use the node Load Latent Diffusion Model"):
            load_guided(tmp_path / "model.pt")
    unet = {k: v for k, v in weights.items() if not k.startswith("first_stage_model.")}
    torch.save(unet, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="use ComfyUI's Load Checkpoint, or, .* Load Latent Diffusion Model"):
        load_guided(tmp_path / "model.pt")
