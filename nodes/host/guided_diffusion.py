"""Loads a guided-diffusion checkpoint as a MODEL of the host, and lists such checkpoints in the host's folders."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch

from ...gradpaint.guided_diffusion import ModelConfig, UNet, check_label, load_checkpoint, trained_sigmas
from ...gradpaint.guided_diffusion.checkpoint import SUFFIXES
from .model_files import file_names, find_file

BUNDLED = "landscapes64 (bundled)"
FOLDER = "guided_diffusion"
LABEL_KEY = "gradpaint_class_label"  # in the options of a CONDITIONING


class PixelSpace(comfy.latent_formats.LatentFormat):
    """Plain images: RGB in [-1, 1], which the host's previews show unchanged."""

    latent_channels = 3
    scale_factor = 1.0
    spacial_downscale_ratio = 1  # the host's spelling
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


class ModelSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """The checkpoint's own table of noise levels, of any length."""

    def __init__(self, model_config: HostConfig, sigmas: torch.Tensor) -> None:
        super().__init__(model_config)
        self.set_sigmas(sigmas)
        self.num_timesteps = len(sigmas)

    def percent_to_sigma(self, percent: float) -> float:
        # The host's own method multiplies by 999 whatever the length of the table.
        if 0.0 < percent < 1.0:
            return self.sigma(torch.tensor((1.0 - percent) * (len(self.sigmas) - 1))).item()
        return super().percent_to_sigma(percent)


class HostUNet(UNet):
    """The network as the host calls it: it returns the predicted noise without the learned variance."""

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        y: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        **ignored: object,
    ) -> torch.Tensor:
        return super().forward(x, timesteps, y)[:, : self.config.in_channels]


class HostConfig(comfy.supported_models_base.BASE):
    """What the host needs to know about a model family."""

    latent_format = PixelSpace
    # No bfloat16: its 8 bits of precision are too few for predicted noise that is multiplied by sigma.
    supported_inference_dtypes = [torch.float16, torch.float32]
    unet_extra_config: dict[str, Any] = {}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__({"config": config.unet})
        self.sampling_settings = {"timesteps": config.diffusion_steps}
        # The host multiplies this by pixels and bytes. It covers the skip connections and a few working tensors.
        per_pixel = 1.5 * (config.unet.num_res_blocks + 10) * config.unet.level_channels[0]
        self.memory_usage_factor = per_pixel / (0.01 * 1024 * 1024)


class GuidedDiffusion(comfy.model_base.BaseModel):
    """A guided-diffusion network in the host; it takes a class label from the conditioning and ignores text."""

    def __init__(self, host_config: HostConfig, config: ModelConfig, device: torch.device | None = None) -> None:
        super().__init__(host_config, comfy.model_base.ModelType.EPS, device=device, unet_model=HostUNet)
        self.config = config
        self.model_sampling = ModelSampling(host_config, trained_sigmas(config))

    def _apply_model(self, x: torch.Tensor, t: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        multiple = self.config.unet.size_multiple
        if x.shape[-1] % multiple or x.shape[-2] % multiple:
            raise ValueError(
                f"width and height must be multiples of {multiple} for this model (trained at "
                f"{self.config.image_size}), got {x.shape[-1]} x {x.shape[-2]}: resize or pad the image"
            )
        return super()._apply_model(x, t, *args, **kwargs)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        num_classes = self.config.unet.num_classes
        if num_classes is None:
            return {}
        label = kwargs.get(LABEL_KEY)
        if label is None:
            raise ValueError(
                "this model is class-conditional, but its conditioning has no class label: connect the conditioning "
                "outputs of Load Guided-Diffusion Model to the sampler"
            )
        return {"y": comfy.conds.CONDRegular(torch.tensor([check_label(label, num_classes)]))}


def load_model(
    path: str, settings: dict | None = None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """Load a checkpoint as a `GuidedDiffusion` under the host's memory management.

    Args:
        path: the file.
        settings: what the file doesn't say, see ``gradpaint.guided_diffusion.infer_config``.
        disable_dynamic: set by the host to get its plain patcher.
    """
    checkpoint = load_checkpoint(path, **(settings or {}))
    config, weights = checkpoint.config, checkpoint.state_dict
    if config.unet.in_channels != 3:
        raise ValueError(
            f"{path} is a model of images with {config.unet.in_channels} channels, but ComfyUI's images have 3: choose "
            "a checkpoint for RGB images"
        )
    host_config = HostConfig(config)
    patcher = make_patcher(host_config, lambda: GuidedDiffusion(host_config, config), weights, disable_dynamic)
    patcher.cached_patcher_init = (load_model, (path, settings))
    return patcher


def make_patcher(
    host_config: comfy.supported_models_base.BASE,
    make: Callable[[], comfy.model_base.BaseModel],
    weights: dict[str, torch.Tensor],
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """Put a model under the host's memory management, in the type that the host chooses.

    Args:
        host_config: the model's; its type is set here.
        make: makes the model after that.
        weights: the network's.
        disable_dynamic: see `load_model`.
    """
    management = comfy.model_management
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    dtypes = host_config.supported_inference_dtypes
    dtype = management.unet_dtype(
        model_params=sum(w.numel() for w in weights.values()),
        supported_dtypes=dtypes,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    manual_cast = management.unet_manual_cast(dtype, load_device, dtypes)
    _set_dtype(host_config, dtype, manual_cast, load_device)

    model = make()
    patcher_class = comfy.model_patcher.ModelPatcher
    if not disable_dynamic:  # the class that the host's own loaders use; hosts before 0.20 don't have it
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", patcher_class)
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    if not management.is_device_cpu(offload_device):
        model.to(offload_device)
    dynamic = hasattr(patcher, "is_dynamic") and patcher.is_dynamic()
    model.diffusion_model.load_state_dict(weights, assign=dynamic)
    return patcher


def _set_dtype(
    host_config: comfy.supported_models_base.BASE,
    dtype: torch.dtype,
    manual_cast: torch.dtype | None,
    device: torch.device,
) -> None:
    setter = host_config.set_inference_dtype
    if "device" in inspect.signature(setter).parameters:
        setter(dtype, manual_cast, device=device)
    else:  # hosts before 0.28
        setter(dtype, manual_cast)


def conditioning(label: int | None) -> list:
    """Make a CONDITIONING that carries a class label, or nothing."""
    options = {} if label is None else {LABEL_KEY: label}
    return [[torch.zeros(1, 1, 1), options]]


def checkpoint_names() -> list[str]:
    """Return the node's choices: the bundled model, then the files in the host's folders that could be such models."""
    return list(dict.fromkeys([BUNDLED, *file_names(_folders(), SUFFIXES)]))


def checkpoint_path(name: str) -> Path:
    """Return the file behind one of `checkpoint_names`.

    Raises:
        FileNotFoundError: naming the folders that were searched.
    """
    if name == BUNDLED:
        from ...gradpaint.models import bundled_model_path

        return Path(bundled_model_path())
    path = find_file(name, _folders())
    if path is not None:
        return path
    raise FileNotFoundError(
        f"checkpoint {name!r} is not in any of the folders models/{', models/'.join(_folders())}: "
        f"put it into models/{FOLDER} and reload the page"
    )


def _folders() -> tuple[str, ...]:
    """The host's model folders to search, including our own if the user has created it."""
    ours = os.path.join(folder_paths.models_dir, FOLDER)
    if os.path.isdir(ours):
        folder_paths.add_model_folder_path(FOLDER, ours)
    own = (FOLDER,) if FOLDER in folder_paths.folder_names_and_paths else ()
    return (*own, "diffusion_models", "checkpoints")
