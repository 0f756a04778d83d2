"""Tiny random models of further families, each a row of `FAMILIES`: the host's config class, its settings made small,
the latent's shape and the conditioning it reads. Built like those of `zoo`: by the host's classes, in inference mode.
"""

from __future__ import annotations

import contextlib

import torch
import zoo
from zoo_images import IMAGES
from zoo_images_newer import NEWER_IMAGES
from zoo_settings import Family
from zoo_variants import VARIANTS
from zoo_videos import VIDEOS

# Their network accepts no double precision, so the differences are taken in float32, with a longer step.
SINGLE_PRECISION = {"cosmos", "cosmos_i2v"}
# They overwrite tensors that their own graph needs, so plain autograd refuses them too.
WRITES_IN_PLACE = {"ltxv", "ltxav", "pixeldit", "pid"}
# The host can't start them from a given latent (see test_latents), only from an empty one.
STARTS_EMPTY = {"hunyuan_image_refiner"}
MADE_FOR = (0, 29)  # ComfyUI's version; older ones lack some of the families
STEP = {"hidream": 1e-4}  # routes tokens to experts: a longer step crosses from one to another

FAMILIES: dict[str, Family] = {**IMAGES, **NEWER_IMAGES, **VIDEOS, **VARIANTS}


def build(name: str, seed: int = 0, dtype=torch.float32):
    """A MODEL of the family."""
    import comfy.supported_models

    family = FAMILIES[name]
    with torch.inference_mode(), _older_hosts_may_lack(name):
        config = getattr(comfy.supported_models, family.config)(dict(family.settings))
        config.unet_config.update(family.settings)  # some classes insist on the sizes of the one model there is
        config.set_inference_dtype(dtype, None)
        model = config.get_model(family.state_dict())
        saved = model.diffusion_model.state_dict()
        for buffer_name, buffer in model.diffusion_model.named_buffers():
            if buffer_name in saved:  # a checkpoint would fill it (SD3's position table)
                buffer.normal_(generator=torch.Generator().manual_seed(seed))
        return zoo._patcher(model, seed)


@contextlib.contextmanager
def _older_hosts_may_lack(name: str):
    """Skips the test where the host is older than the one that the zoo was made for, and lacks the family."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        from comfyui_version import __version__

        if tuple(int(part) for part in __version__.split(".")[:2]) >= MADE_FOR:
            raise
        import pytest

        pytest.skip(f"ComfyUI {__version__} does not know {name} as the zoo does ({error})")


def conditioning(name: str, seed: int = 1):
    """The host's conditioning format for a family: random embeddings, in inference mode."""
    family = FAMILIES[name]
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        return [
            [
                torch.randn(family.text, generator=generator),
                {
                    "pooled_output": torch.randn(1, family.pooled, generator=generator),
                    **{key: make(generator) for key, make in family.extra.items()},
                },
            ]
        ]


SHAPES = {name: family.shape for name, family in FAMILIES.items()}
