"""The host's own sampling. Its `nodes` module shares its name with our folder: absolute here, relative for ours."""

from __future__ import annotations

import importlib
from typing import Any

import comfy.samplers
from torch import Tensor

host_nodes = importlib.import_module("nodes")  # ComfyUI's; a type checker would find our folder

if not hasattr(host_nodes, "common_ksampler"):
    raise ImportError(
        f"`nodes` is {getattr(host_nodes, '__file__', host_nodes)!r}, not ComfyUI's nodes.py: something "
        "put another folder ahead of ComfyUI on sys.path"
    )


def sampler_names() -> list[str]:
    """KSampler's samplers, those that other packs registered included."""
    return comfy.samplers.KSampler.SAMPLERS


def scheduler_names() -> list[str]:
    """KSampler's schedulers."""
    return comfy.samplers.KSampler.SCHEDULERS


def ksample(
    model: Any,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: list,
    negative: list,
    latent: dict,
    denoise: float = 1.0,
    **segment: Any,
) -> dict:
    """Do what the KSampler node does, with its noise, preview, progress bar and cancellation.

    Args:
        model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise: As KSampler takes them.
        segment: What KSampler (Advanced) passes on: disable_noise, start_step, last_step, force_full_denoise.

    Returns:
        The LATENT.
    """
    return host_nodes.common_ksampler(
        model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise=denoise, **segment
    )[0]


def sigmas_of(model: Any, steps: int, sampler_name: str, scheduler: str) -> Tensor:
    """The noise levels of KSampler's run of that many steps at denoise 1, (steps + 1,) or as many as the scheduler
    makes of them."""
    return comfy.samplers.KSampler(
        model,
        steps=steps,
        device=model.load_device,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=1.0,
        model_options=model.model_options,
    ).sigmas
