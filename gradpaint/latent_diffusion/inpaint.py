"""Inpainting of images of any size with a latent diffusion model: encoded, repainted as latents, decoded.

One image or a batch of one size goes the same way; `gradpaint inpaint` and `gradpaint evaluate` both run this.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.fill import fill_hole
from ..method.settings import GuidanceSettings
from ..sampling.inpaint_image import inpaint_image as inpaint_pixels
from ..sampling.inpaint_image import reflect_pad
from ..sampling.methods import get_method
from ..sampling.sigmas import spaced_sigmas

if TYPE_CHECKING:
    from ..sampling.baselines.oracles import Codec
    from ..sampling.run import InpaintResult
    from .denoiser import LatentDiffusionDenoiser

CONTENT = "fill"  # of the hole while encoding: known cells beside it see a little of it, see `image.fill`


def latent_mask(mask: Tensor, downscale: int) -> Tensor:
    """(B, 1, H, W) -> (B, 1, h, w): a latent cell is repainted as much as the most of its pixels."""
    return F.max_pool2d(mask.float(), downscale)


def latent_shape(denoiser: LatentDiffusionDenoiser, height: int, width: int) -> tuple[int, int, int]:
    """(C, h, w) of the latent that `inpaint_image` makes of an image of that size, in pixels."""
    multiple, cell = denoiser.size_multiple, denoiser.downscale
    h, w = ((side + -side % multiple) // cell for side in (height, width))
    return denoiser.config.first_stage.embed_dim, h, w


def inpaint_image(
    denoiser: LatentDiffusionDenoiser,
    image: Tensor,
    mask: Tensor,
    *,
    steps: int,
    seed: int = 0,
    method: str = "gradpaint",
    sampler: str = "ddim",
    settings: GuidanceSettings | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
    align_decoded: bool = False,
    codec: Codec | None = None,
    **options: Any,
) -> InpaintResult:
    """Repaint images with a latent model; known pixels stay exactly as they are.

    Args:
        denoiser: the model.
        image: (B, 3, H, W) in [-1, 1], any size: it is mirrored up to the multiple that the model takes.
        mask: (B, 1, H, W), 1 = repaint.
        settings: GradPaint's, None for the defaults. Their loss at the border is off, as in the paper for latents...
        align_decoded: ...unless this is set: then it looks at the decoded estimate, at the cost of a pass through the
            decoder and back at each guided step.
        codec: (encode, decode) for latent_copy; None: the model's own.
        steps, seed, method, sampler, device, progress, options: as `sampling.inpaint_image.inpaint_image`'s; the
            option noise, (B, C, h, w), has the latents' shape, see `latent_shape`.

    Returns:
        An `InpaintResult` with images: image, and the record's x0_hat decoded, all (B, 3, H, W) on the CPU.
    """
    chosen = get_method(method)
    if chosen.oracle:  # bounds are of the images themselves
        arguments: dict[str, Any] = dict(
            steps=steps, seed=seed, method=method, sampler=sampler, settings=settings, device=device
        )
        codec = (denoiser.encode, denoiser.decode) if codec is None else codec
        return inpaint_pixels(denoiser, image, mask, progress=progress, codec=codec, **arguments, **options)
    latent, cells, fine = _encoded(denoiser, image, mask, device)
    settings = GuidanceSettings() if settings is None else settings
    if align_decoded and settings.alignment.lambda_al > 0 and "view" in chosen.extras:
        options["view"] = denoiser.view(latent, cells, settings.alignment.border_width, fine)
    else:
        settings = dataclasses.replace(settings, alignment=dataclasses.replace(settings.alignment, lambda_al=0.0))
    result = chosen.run(
        denoiser,
        latent,
        cells,
        sigmas=spaced_sigmas(denoiser.sigmas, steps),
        seed=seed,
        sampler=sampler,
        settings=settings,
        clip=None,
        progress=progress,
        **options,
    )
    return _decoded(denoiser, result, image, mask)


def _encoded(
    denoiser: LatentDiffusionDenoiser, image: Tensor, mask: Tensor, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """The latent of the known image, its mask in cells, and in pixels of the mirrored image; nothing under the hole."""
    padded, fine = (reflect_pad(t, denoiser.size_multiple).to(device) for t in (image, mask))
    filled = fill_hole((padded + 1) / 2, fine, CONTENT) * 2 - 1
    with torch.no_grad():
        latent = denoiser.encode(filled)
    return latent, latent_mask(fine, denoiser.downscale), fine


def _decoded(denoiser: LatentDiffusionDenoiser, result: InpaintResult, image: Tensor, mask: Tensor) -> InpaintResult:
    """The result and what its record keeps as images of the input's size."""
    device, (height, width) = result.image.device, image.shape[2:]

    def pixels(latent: Tensor) -> Tensor:
        with torch.no_grad():
            return denoiser.decode(latent.to(device))[..., :height, :width].clamp(-1, 1).cpu()

    def enlarged(cells: Tensor) -> Tensor:
        side = denoiser.downscale
        return cells.repeat_interleave(side, -2).repeat_interleave(side, -1)[..., :height, :width].cpu()

    mask = mask.to(image)
    mixed = mask * pixels(result.image).to(image) + (1 - mask) * image
    result.image = torch.where(mask > 0, mixed, image)
    for step in result.record:
        step.x0_hat = None if step.x0_hat is None else pixels(step.x0_hat)
        step.maps = {name: enlarged(cells) for name, cells in step.maps.items()}
    return result
