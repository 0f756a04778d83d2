"""Sampling through the host's own functions, inside inference mode as its server does it."""
from __future__ import annotations

from contextlib import contextmanager

import torch
import zoo


def problem(family: str, batch: int = 1, seed: int = 0, shapes=zoo.SHAPES):
    """(noise, latent, mask) of a family's size; the mask is the host's, 1 = repaint."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch,) + shapes[family][1:]
    latent = torch.rand(shape, generator=generator) * 1.6 - 0.8
    mask = torch.zeros(1, 1, *shape[-2:])
    mask[..., 4:12, 5:11] = 1
    return torch.randn(shape, generator=generator), latent, mask


def schedule(model, sampler: str, steps: int, scheduler: str = "normal"):
    import comfy.samplers

    return comfy.samplers.KSampler(model, steps=steps, device="cpu", sampler=sampler, scheduler=scheduler).sigmas


def sample(model, family, sampler, sigmas, noise, latent, mask=None, cfg=1.0, seed=3, callback=None,
           conditioning=zoo.conditioning):
    """The host's custom sampling; returns the result in the model's own units."""
    import comfy.sample
    import comfy.samplers

    positive, negative = conditioning(family), conditioning(family, seed=2)
    with torch.inference_mode():
        out = comfy.sample.sample_custom(
            model, noise.clone(), cfg, comfy.samplers.sampler_object(sampler), sigmas, positive, negative,
            latent.clone(), noise_mask=mask, callback=callback, disable_pbar=True, seed=seed)
        return model.model.process_latent_in(out).clone()


@contextmanager
def recorded(module, name):
    """Calls of module.name inside the block, as a list of their results."""
    original, results = getattr(module, name), []

    def spy(*args, **kwargs):
        results.append(original(*args, **kwargs))
        return results[-1]

    setattr(module, name, spy)
    try:
        yield results
    finally:
        setattr(module, name, original)
