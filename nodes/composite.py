"""GradPaint Composite: puts the repainted region back into the original image."""

from __future__ import annotations

import logging

from comfy_api.latest import io
from torch import Tensor

from ..gradpaint.image.colour import COLOUR_MATCHES
from ..gradpaint.image.stitch import Stitch as StitchData
from ..gradpaint.image.stitch import composite, whole_image
from .host.latents.convert import fit_mask, one_per_mask, tensor_to_mask, to_channels_first
from .sockets import CATEGORY, Stitch

log = logging.getLogger(__name__)


class GradPaintComposite(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintComposite",
            display_name="GradPaint Composite",
            category=CATEGORY,
            description="Puts the repainted region back into the image, at the image's own size. Outside the mask and "
            "the blending band, every pixel stays exactly as it was.",
            search_aliases=[
                "inpaint stitch",
                "composite masked",
                "paste back",
                "uncrop",
                "color match",
                "blend seam",
                "color correction",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The decoded result. If its size differs, it is resized."),
                Stitch.Input(
                    "stitch",
                    optional=True,
                    tooltip="From GradPaint Inpaint Encode. If not connected, connect original and mask.",
                ),
                *_blend_inputs(),
                io.Image.Input(
                    "original", optional=True, tooltip="Without a stitch: the image to put the result into."
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Without a stitch: the mask of what was repainted, 1 (white)."
                ),
            ],
            outputs=[
                io.Image.Output(
                    "image", display_name="IMAGE", tooltip="The image at its own size, with the repainted region in it."
                ),
                io.Mask.Output("mask", display_name="MASK", tooltip="How much of the result each pixel holds."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        blend: int,
        colour_match: str,
        colour_strength: float,
        stitch: StitchData | None = None,
        original: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        if stitch is None:
            if original is None or mask is None:
                raise ValueError(
                    "stitch is not connected: connect it from GradPaint Inpaint Encode, or connect both "
                    "original and mask"
                )
            pictures = one_per_mask(to_channels_first(original, "original"), mask)
            stitch = whole_image(pictures, fit_mask(mask, pictures))
        elif original is not None or mask is not None:
            raise ValueError(
                "stitch is connected, and so is original or mask: they are for use without a stitch; "
                "disconnect them, or the stitch"
            )
        if not image.isfinite().all():
            log.warning(
                "image holds values that are NaN or infinite: the model or the VAE overflowed, and the result is lost "
                "there. Try another precision (--fp32-vae, --fp32-unet)"
            )
        pictures, weights = composite(to_channels_first(image), stitch, blend, colour_match, colour_strength)
        return io.NodeOutput(pictures.movedim(1, -1).contiguous(), tensor_to_mask(weights))


def _blend_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "blend",
            default=8,
            min=0,
            max=1024,
            tooltip="Width in pixels of the band outside the mask where result and image blend. 0: a hard "
            "edge at the mask.",
        ),
        io.Combo.Input(
            "colour_match",
            display_name="color_match",
            options=list(COLOUR_MATCHES),
            default=COLOUR_MATCHES[0],
            tooltip="Matches the result's colors to the image, judged by the known region. smooth: a shift "
            "that varies across the picture. mean: one shift. mean and contrast: shift and spread. off: as "
            "decoded.",
        ),
        io.Float.Input(
            "colour_strength",
            display_name="color_strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            advanced=True,
            tooltip="How much of the color match to apply.",
        ),
    ]


NODES = [GradPaintComposite]
