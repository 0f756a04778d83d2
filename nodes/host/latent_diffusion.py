"""Makes MODEL, VAE and CONDITIONING of the host from CompVis's latent diffusion checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models_base
import torch

from ...gradpaint.latent_diffusion import (
    LatentCheckpoint,
    LatentDiffusionConfig,
    LatentUNet,
    VQModel,
    check_label,
    load_checkpoint,
    trained_sigmas,
)
from ...gradpaint.latent_diffusion.checkpoint import SUFFIXES
from ...gradpaint.latent_diffusion.first_stage import CELLS_AT_ONCE
from .guided_diffusion import ModelSampling, make_patcher
from .model_files import file_names, find_file

FOLDERS = ("checkpoints", "diffusion_models")


class VQLatents(comfy.latent_formats.LatentFormat):
    """Latents of a VQ first stage, as they are before the quantizer."""

    def __init__(self, config: LatentDiffusionConfig):
        self.latent_channels = config.first_stage.embed_dim
        self.scale_factor = config.scale_factor
        self.spacial_downscale_ratio = config.first_stage.downscale  # the host's spelling


class HostConfig(comfy.supported_models_base.BASE):
    """What the host wants to know of a model family."""

    # No bfloat16: 8 bits of mantissa are too few for a predicted noise that is multiplied by sigma.
    supported_inference_dtypes = [torch.float16, torch.float32]
    unet_extra_config: dict[str, Any] = {}

    def __init__(self, config: LatentDiffusionConfig):
        super().__init__({"config": config.unet})
        self.latent_format = VQLatents(config)
        self.sampling_settings = {"timesteps": config.timesteps}
        # The host multiplies this by latent cells and bytes: what the skips and a few working tensors of a run take.
        per_cell = 1.5 * (config.unet.num_res_blocks + 10) * config.unet.level_channels[0]
        self.memory_usage_factor = per_cell / (0.01 * 1024 * 1024)


class LatentDiffusion(comfy.model_base.BaseModel):
    """A latent diffusion UNet in the host; a class comes as its embedding, text is refused."""

    def __init__(self, host_config: HostConfig, config: LatentDiffusionConfig, device: Any = None):
        super().__init__(host_config, comfy.model_base.ModelType.EPS, device=device, unet_model=LatentUNet)
        self.config = config
        self.model_sampling = ModelSampling(host_config, trained_sigmas(config))

    def _apply_model(self, x: torch.Tensor, t: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        multiple, cell = self.config.unet.size_multiple, self.config.first_stage.downscale
        if x.shape[-1] % multiple or x.shape[-2] % multiple:
            raise ValueError(
                f"this model takes images whose width and height are multiples of {multiple * cell} (it was trained "
                f"at {self.config.image_size}), got {x.shape[-1] * cell} x {x.shape[-2] * cell}; resize or pad the "
                "image (GradPaint Inpaint Encode does)"
            )
        return super()._apply_model(x, t, *args, **kwargs)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        width = self.config.unet.context_dim
        if width is None:
            return {}
        context = kwargs.get("cross_attn")
        if context is None or context.shape[-1] != width:
            got = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(
                f"this model is class-conditional and takes a conditioning of width {width}, got {got}: connect the "
                "conditioning outputs of Load Latent Diffusion Model"
            )
        return {"c_crossattn": comfy.conds.CONDCrossAttn(context)}


class VQVAE(comfy.sd.VAE):
    """The first stage as the host's VAE object. Decoding quantizes first, encoding does not quantize.

    image_multiple: what width and height of images must be multiples of for the model, in pixels.
    """

    def __init__(self, config: LatentDiffusionConfig, weights: dict[str, torch.Tensor]):
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)})  # everything that this host's VAE objects have
        stage, management = config.first_stage, comfy.model_management
        self.latent_channels = stage.embed_dim
        self.downscale_ratio = self.upscale_ratio = stage.downscale
        self.image_multiple = config.size_multiple
        self.disable_offload = False
        self.working_dtypes = [torch.float32]  # in half precision cells go to other codes
        self.vae_dtype = management.vae_dtype(self.device, self.working_dtypes)
        share, codes = stage.channels / 128, 8 * CELLS_AT_ONCE * stage.n_embed
        # As the host's own of its KL autoencoders, which have the same layers.
        self.memory_used_encode = lambda shape, dtype: 1767 * share * shape[2] * shape[3] * management.dtype_size(dtype)
        self.memory_used_decode = lambda shape, dtype: (
            2178 * share * shape[2] * shape[3] * stage.downscale**2 * management.dtype_size(dtype) + codes
        )
        network = VQModel(stage, comfy.ops.disable_weight_init, dtype=self.vae_dtype).eval()
        if hasattr(management, "archive_model_dtypes"):
            management.archive_model_dtypes(network)
        self.first_stage_model = network
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        offload_device = management.vae_offload_device()
        self.patcher = patcher_class(network, load_device=self.device, offload_device=offload_device)
        dynamic = hasattr(self.patcher, "is_dynamic") and self.patcher.is_dynamic()
        network.load_state_dict(weights, assign=dynamic)
        self.size = None
        if hasattr(self, "model_size"):
            self.model_size()


def load(path: str, settings: dict | None = None) -> tuple[Any, VQVAE, LatentCheckpoint]:
    """MODEL and VAE of a checkpoint, and the checkpoint itself.

    Args:
        path: the file.
        settings: keywords of ``gradpaint.latent_diffusion.load_checkpoint``.
    """
    checkpoint = load_checkpoint(path, **(settings or {}))
    return _model(checkpoint, path, settings), VQVAE(checkpoint.config, checkpoint.first_stage), checkpoint


def load_model(
    path: str, settings: dict | None = None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The MODEL alone; the host calls this where it wants the same model once more."""
    return _model(load_checkpoint(path, **(settings or {})), path, settings, disable_dynamic)


def _model(
    checkpoint: LatentCheckpoint, path: str, settings: dict | None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    config = checkpoint.config
    host_config = HostConfig(config)
    patcher = make_patcher(host_config, lambda: LatentDiffusion(host_config, config), checkpoint.unet, disable_dynamic)
    patcher.cached_patcher_init = (load_model, (path, settings))
    return patcher


def conditioning(checkpoint: LatentCheckpoint, label: int | None) -> list:
    """CONDITIONING: the class's embedding, (1, 1, width); nothing for an unconditional model.

    label: None for the class that stands for none.
    """
    label = check_label(label, checkpoint.config)
    if label is None:
        return [[torch.zeros(1, 1, 1), {}]]
    return [[checkpoint.classes["embedding.weight"][label].float().reshape(1, 1, -1).clone(), {}]]


def negative(checkpoint: LatentCheckpoint, label: int | None) -> list:
    """CONDITIONING for the other side of cfg: the class that stands for none, or the same where there is none."""
    return conditioning(checkpoint, label if checkpoint.config.null_label is None else None)


def checkpoint_names() -> list[str]:
    """What the node's list shows: the files of the host's folders that could be such models."""
    return file_names(FOLDERS, SUFFIXES)


def checkpoint_path(name: str) -> Path:
    """The file behind a name of `checkpoint_names`."""
    path = find_file(name, FOLDERS)
    if path is not None:
        return path
    raise FileNotFoundError(
        f"checkpoint {name!r} is in none of the folders models/{', models/'.join(FOLDERS)}; put it into "
        "models/checkpoints and reload the page"
    )
