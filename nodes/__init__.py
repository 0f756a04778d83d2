"""The pack's ComfyUI nodes. Importing this package imports nothing of ComfyUI; `all_nodes` does."""

from __future__ import annotations


def all_nodes() -> list[type]:
    """The node classes, in the order in which the menu and the documentation show them."""
    from . import (
        alignment_loss,
        apply,
        composite,
        demo_scene,
        early_stop,
        encode,
        inpaint_method,
        ksampler,
        ksampler_advanced,
        load_guided_diffusion,
        load_latent_diffusion,
        mask_generator,
        memory,
        pictures,
        report,
        sampler,
    )

    modules = (
        load_guided_diffusion,
        mask_generator,
        alignment_loss,
        early_stop,
        memory,
        ksampler,
        ksampler_advanced,
        sampler,
        apply,
        encode,
        composite,
        pictures,
        report,
        inpaint_method,
        demo_scene,
        load_latent_diffusion,
    )
    return [node for module in modules for node in module.NODES]
