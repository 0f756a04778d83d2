"""A run's record in pictures, through the host's VAE or its linear projection of latents to colors."""

from __future__ import annotations

import math
from typing import Any

import torch
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor

from ....gradpaint.drawing.run_pictures import curves_of, gradient_maps, loss_curves, timeline
from ....gradpaint.method.decoders import LinearRGB
from ....gradpaint.method.record import StepRecord, titles_of
from ..latents.space import is_pixel_space
from .record import RunRecord

NOT_KEPT = "this record holds no {}: set keep_record of the GradPaint KSampler to pictures{}"


def timeline_of(record: RunRecord, vae: Any = None, cell: int = 192) -> Image.Image | ExecutionBlocker:
    """Fig. 2, two rows per image; where nothing was kept, what tells the user so if the picture is used."""
    if not record.x0_hat:
        return ExecutionBlocker(NOT_KEPT.format("x0_hat", ""))
    estimates, collages = (
        {i: _as_rgb(latent, record, vae) for i, latent in kept.items()} for kept in (record.x0_hat, record.collages)
    )
    return timeline(estimates, collages or None, sigmas=_sigmas(record), names=("estimate", "collage"), cell=cell)


def gradients_of(record: RunRecord, cell: int = 192) -> Image.Image | ExecutionBlocker:
    """Fig. 3a, likewise."""
    if not record.maps or record.mask is None:
        return ExecutionBlocker(NOT_KEPT.format("gradients", ", and guide at least one step through the model"))
    titles = titles_of(record.history)
    return gradient_maps(record.maps, record.mask, titles=titles, sigmas=_sigmas(record), cell=cell)


def losses_of(record: RunRecord) -> Image.Image | ExecutionBlocker:
    """Means over the batch, gaps where no gradient was taken."""
    if not record.steps:
        return ExecutionBlocker("this record is of a run without steps, as one of denoise 0 is")

    guided = {step.step: step for step in record.guided}
    steps = [guided.get(i, StepRecord(i, math.nan)) for i in range(record.steps)]
    title = f"{record.steps} steps: {record.stop}" if guided else f"{record.steps} steps, none guided"
    return loss_curves(curves_of(steps), guided=[step.guided for step in steps], title=title)


def _sigmas(record: RunRecord) -> dict[int, float]:
    return {step.step: step.sigma for step in record.history}


def _as_rgb(latent: Tensor, record: RunRecord, vae: Any) -> Tensor:
    """(B, C, ..., h, w) in the model's units -> (B, 3, ..., H, W) in [-1, 1]."""
    if is_pixel_space(record):
        return latent
    latent_format = record.latent_format
    if vae is not None:
        image = vae.decode(latent_format.process_out(latent))  # (B, ..., H, W, 3) in [0, 1]
        return image[..., :3].movedim(-1, 1).float().cpu() * 2 - 1
    factors = latent_format.latent_rgb_factors
    if factors is None:
        raise ValueError(
            f"vae is not connected, and ComfyUI has no projection to colors for "
            f"{type(latent_format).__name__} latents: connect the model's VAE"
        )
    bias = latent_format.latent_rgb_factors_bias
    reshape = getattr(latent_format, "latent_rgb_factors_reshape", None)
    return LinearRGB(torch.tensor(factors), None if bias is None else torch.tensor(bias), reshape)(latent).clamp(-1, 1)
