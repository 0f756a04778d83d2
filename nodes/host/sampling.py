"""The host's own sampling. Its `nodes` module shares its name with our folder: absolute here, relative for ours."""
from __future__ import annotations

import comfy.samplers

import nodes as host_nodes

if not hasattr(host_nodes, "common_ksampler"):
    raise ImportError(f"`nodes` is {getattr(host_nodes, '__file__', host_nodes)!r}, not ComfyUI's nodes.py: something "
                      "put another folder ahead of ComfyUI on sys.path")


def sampler_names() -> list[str]:
    """KSampler's samplers, those that other packs registered included."""
    return comfy.samplers.KSampler.SAMPLERS


def scheduler_names() -> list[str]:
    """KSampler's schedulers."""
    return comfy.samplers.KSampler.SCHEDULERS


def ksample(model, seed: int, steps: int, cfg: float, sampler_name: str, scheduler: str, positive, negative,
            latent: dict, denoise: float) -> dict:
    """What the KSampler node does, with its noise, preview, progress bar and cancellation. Returns the LATENT."""
    return host_nodes.common_ksampler(model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent,
                                      denoise=denoise)[0]
