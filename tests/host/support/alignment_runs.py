"""Runs with an alignment loss on latents, and the decoders for it."""

from __future__ import annotations

import torch
import zoo
from guided_runs import gradients
from sampling import problem, sample, schedule
from tiny_vae import tiny_vae


def write_tiny(folder, name="taesd_decoder.safetensors", channels=4, seed=0):
    """A random tiny decoder in the host's file format, in half precision as the published ones are."""
    import comfy.taesd.taesd
    from safetensors.torch import save_file

    with torch.inference_mode(False), torch.no_grad():
        network = comfy.taesd.taesd.TAESD(latent_channels=channels).taesd_decoder
        zoo._randomise(network, seed)
        save_file({key: value.half().contiguous() for key, value in network.state_dict().items()}, folder / name)


def settings(tools, alignment, **changes):
    return tools.settings.GuidanceSettings(alignment=alignment, schedule=tools.settings.GuideSchedule.full(), **changes)


def guided(tools, model, alignment, records=None, mask=None, **changes):
    return tools.guidance.apply_gradpaint(
        model, settings(tools, alignment, **changes), None if records is None else records.append, mask=mask
    )


def one_step(tools, model, alignment, family="sd15", **options):
    """Return (the gradient of the only guided step, the run's record)."""
    noise, latent, mask = problem(family, seed=4)
    records = []
    with gradients(tools) as taken:
        sample(
            guided(tools, model, alignment, records, **options),
            family,
            "euler",
            schedule(model, "euler", 8)[3:5],
            noise,
            latent,
            mask,
        )
    return taken[0], records[0]


def alignment_for(tools, decoders, space, vae=None, **values):
    values = dict(lambda_al=2.0, softness=0.3, border_width=2, space=space) | values
    return decoders.HostAlignment(**values, vae=vae) if vae else tools.settings.AlignmentSettings(**values)


def made(decoders, tools, model, space, approx, **values):
    """Return (alignment settings, decoder) for the space."""
    if space == "tiny":
        write_tiny(approx)
    alignment = alignment_for(tools, decoders, space, tiny_vae() if space == "vae" else None, **values)
    return alignment, decoders.decoder_for(model.model, alignment, torch.zeros(1, 4, 16, 16))
