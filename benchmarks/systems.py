"""Small systems for quality studies in the host: a MODEL, images and how to start. Import the host before building one.

anime64 is the pretrained 64x64 model of this project's internal measurement set, demo the model that comes with the
pack on procedural landscapes it was not trained on; either also as a flow model: the same network, with states
(1 - sigma)*x0 + sigma*eps and the velocity as its answer. demo128 is demo at twice the size of its training.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple

import anime64_host
import torch

SYSTEMS = ("anime64", "anime64 as flow", "demo", "demo as flow", "demo128")
LEAST_COVERAGE = 0.1  # masks with a smaller hole show little and are passed over


class System(NamedTuple):
    """model: a ModelPatcher; images (n, 3, H, W) in [-1, 1]; masks (n, 1, H, W)."""

    model: object
    images: torch.Tensor
    masks: torch.Tensor


class AsFlow(torch.nn.Module):
    """A noise-predicting network as one that predicts velocity, eps - x0, in states (1 - s)*x0 + s*eps.

    Such a state over 1 - s is the network's own, at sigma = s / (1 - s), up to its highest level.
    """

    def __init__(self, network: torch.nn.Module, sampling):
        super().__init__()
        self.network, self.sampling, self.dtype = network, sampling, network.dtype

    def forward(self, x, timesteps, context=None, **ignored):
        s = (timesteps / 1000).view(-1, 1, 1, 1)
        sigma = (s / (1 - s).clamp_min(1e-6)).clamp(max=float(self.sampling.sigma_max))
        state = x * (sigma / s)
        eps = self.network(state / (sigma**2 + 1) ** 0.5, self.sampling.timestep(sigma.flatten()))
        return (x - (state - sigma * eps)) / s


def build(name: str, pack, assets: Path, n: int, first: int = 0, mask: str = "thick") -> System:
    """n images from the first-th on, with masks of their own seeds."""
    part = lambda module: importlib.import_module(f"{pack.__name__}.{module}")
    family = name.removesuffix(" as flow")
    if family == "anime64":
        model = anime64_host.load_model(assets)
        files = anime64_host.image_files(assets, first + n)[first:]
        images = torch.cat([part("gradpaint.image.files").load_image(file) for file in files])
    else:
        size = 128 if family == "demo128" else 64
        model = _demo_model(part("nodes.host.guided_diffusion"))
        scenes = part("gradpaint.models.scenes")
        images = scenes.landscapes([scenes.HELD_OUT_SEEDS[500 + first + i] for i in range(n)], size)
    if name.endswith("as flow"):
        model = _as_flow(model)
    size = images.shape[-1]
    masks = part("gradpaint.masks").masks_above(LEAST_COVERAGE, mask, size, size, n, first_seed=1000 + first)
    return System(model, images, masks)


def _demo_model(loader) -> object:
    model = loader.load_model(str(loader.checkpoint_path(loader.BUNDLED)))
    anime64_host.quick_on_cpu(model.model.diffusion_model)
    return model


def _as_flow(patcher) -> object:
    import comfy.model_base
    import comfy.model_patcher

    inner = patcher.model
    config = object.__new__(type(inner.model_config))  # its __getattr__ is in the way of copy.copy
    vars(config).update(vars(inner.model_config))
    config.unet_config, config.sampling_settings = {"disable_unet_model_creation": True}, {}
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.FLOW)
    model.diffusion_model = AsFlow(inner.diffusion_model, inner.model_sampling)
    return comfy.model_patcher.ModelPatcher(model, patcher.load_device, patcher.offload_device)
