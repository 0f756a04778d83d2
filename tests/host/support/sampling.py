"""Sampling through the host's own functions, inside inference mode as its server does it."""

from __future__ import annotations

from contextlib import contextmanager

import torch
import zoo


def problem(family: str, batch: int = 1, seed: int = 0, shapes=zoo.SHAPES, empty: bool = False):
    """(noise, latent, mask) of a family's size, nested where its latent is; the mask is the host's, 1 = repaint."""
    generator = torch.Generator().manual_seed(seed)
    shape = shapes[family]
    if isinstance(shape[0], tuple):
        return tuple(map(nested, zip(*(_problem((batch, *component[1:]), generator, empty) for component in shape))))
    return _problem((batch, *shape[1:]), generator, empty)


def _problem(shape, generator, empty: bool):
    latent = torch.zeros(shape) if empty else torch.rand(shape, generator=generator) * 1.6 - 0.8
    mask = torch.zeros(1, 1, *shape[-2:])
    mask[..., 4:12, 5:11] = 1
    return torch.randn(shape, generator=generator), latent, mask


def nested(components):
    import comfy.nested_tensor

    return comfy.nested_tensor.NestedTensor(components)


def packed(latent):
    """A nested latent as the host's samplers see it, (B, 1, N); others are that already."""
    import comfy.utils

    return comfy.utils.pack_latents(latent.unbind())[0] if latent.is_nested else latent


def known_part(mask, latent) -> torch.Tensor:
    """Where the noise mask keeps the latent, bool, shaped like the packed latent. What has no mask is repainted."""
    import comfy.utils

    components = latent.unbind() if latent.is_nested else [latent]
    masks = mask.unbind() if mask.is_nested else [mask]
    masks = [*masks, *(torch.ones_like(component) for component in components[len(masks) :])]
    known = [
        comfy.utils.reshape_mask(m, component.shape).expand_as(component) == 0
        for m, component in zip(masks, components)
    ]
    return packed(nested(known)) if latent.is_nested else known[0]


def in_model_units(model, latent) -> torch.Tensor:
    """The packed latent as the host's samplers see it: it leaves empty ones alone."""
    latent = packed(latent)
    return model.model.process_latent_in(latent) if latent.any() else latent


def schedule(model, sampler: str, steps: int, scheduler: str = "normal"):
    import comfy.samplers

    return comfy.samplers.KSampler(model, steps=steps, device="cpu", sampler=sampler, scheduler=scheduler).sigmas


def sample(
    model,
    family,
    sampler,
    sigmas,
    noise,
    latent,
    mask=None,
    cfg=1.0,
    seed=3,
    callback=None,
    conditioning=zoo.conditioning,
):
    """The host's custom sampling; returns the result in the model's own units, packed."""
    import comfy.sample
    import comfy.samplers

    positive, negative = conditioning(family), conditioning(family, seed=2)
    with torch.inference_mode():
        out = comfy.sample.sample_custom(
            model,
            _copy(noise),
            cfg,
            comfy.samplers.sampler_object(sampler),
            sigmas,
            positive,
            negative,
            _copy(latent),
            noise_mask=mask,
            callback=callback,
            disable_pbar=True,
            seed=seed,
        )
        return model.model.process_latent_in(packed(out)).clone()


def _copy(latent):
    return nested([component.clone() for component in latent.unbind()]) if latent.is_nested else latent.clone()


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
