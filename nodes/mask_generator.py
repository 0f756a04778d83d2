"""GradPaint Mask Generator: the paper's evaluation masks (LaMa's) and simple shapes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..gradpaint.masks import MASK_KINDS, make_masks, mask_options
from .host.latents.convert import size_of, tensor_to_mask
from .sockets import CATEGORY

_SIDES = ("left", "right", "top", "bottom")


class GradPaintMaskGenerator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintMaskGenerator",
            display_name="GradPaint Mask Generator",
            category=CATEGORY,
            description="Draws inpainting masks: LaMa's thin, medium and thick masks, random pixels, a box, ellipse or "
            "half, a border for outpainting, or strokes that cover a given share.",
            search_aliases=["random mask", "lama mask", "inpaint mask", "outpaint mask", "irregular mask"],
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=list(MASK_KINDS),
                    default="thick",
                    tooltip="thin, medium, thick: LaMa's random strokes and boxes, which the paper evaluates on. "
                    "random_pixels, box, ellipse, half, outpaint: what their names say. coverage: strokes until the "
                    "given share is covered.",
                ),
                *_size_and_seed_inputs(),
                *_kind_inputs(),
                *_border_inputs(),
                io.MultiType.Input(
                    "size_from",
                    [io.Image, io.Latent],
                    optional=True,
                    tooltip="Takes width and height from an image, or from a latent (one mask pixel per latent cell).",
                ),
            ],
            outputs=[io.Mask.Output("mask", display_name="MASK", tooltip="1 (white) = repaint.")],
        )

    @classmethod
    def execute(
        cls,
        kind: str,
        width: int,
        height: int,
        batch_size: int,
        seed: int,
        size_from: Tensor | dict | None = None,
        **options: Any,
    ) -> io.NodeOutput:
        if size_from is not None:
            height, width = size_of(size_from)
        if not any(options[side] for side in _SIDES):
            options.update(dict.fromkeys(_SIDES))  # the library's default border
        chosen = {name: options[name] for name in mask_options(kind)}
        mask = tensor_to_mask(make_masks(kind, height, width, range(seed, seed + batch_size), **chosen))
        return io.NodeOutput(mask, ui=ui.PreviewMask(mask, cls=cls))


def _size_and_seed_inputs() -> list[io.Input]:
    return [
        *(
            io.Int.Input(
                name,
                default=512,
                min=8,
                max=16384,
                tooltip=f"{name.capitalize()} in pixels; size_from overrides it. LaMa's masks are defined for 256 and "
                "512; other sizes are scaled.",
            )
            for name in ("width", "height")
        ),
        io.Int.Input(
            "batch_size", default=1, min=1, max=4096, tooltip="Number of masks. Their seeds count up from the first."
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="The same seed, kind and size give the same mask on every machine.",
        ),
    ]


def _kind_inputs() -> list[io.Input]:
    """Options of single kinds of mask."""
    return [
        io.Float.Input(
            "coverage",
            default=0.25,
            min=0.01,
            max=0.99,
            step=0.01,
            tooltip="For box, ellipse (at most 0.78) and coverage: the share to repaint. The paper's Table 8 uses 0.1, "
            "0.25, 0.5 and 0.75.",
        ),
        io.Float.Input(
            "probability",
            default=0.8,
            min=0.01,
            max=0.99,
            step=0.01,
            advanced=True,
            tooltip="For random_pixels: each pixel's chance of being repainted. The paper's section 7 uses 0.8.",
        ),
        io.Combo.Input(
            "strokes",
            options=["thin", "medium", "thick"],
            default="thick",
            advanced=True,
            tooltip="For coverage: which of LaMa's strokes to draw.",
        ),
        io.Combo.Input(
            "position",
            options=["center", "random"],
            default="center",
            advanced=True,
            tooltip="For box and ellipse: in the center, or wherever the seed puts it.",
        ),
        io.Combo.Input(
            "side", options=list(_SIDES), default="left", advanced=True, tooltip="For half: which half is repainted."
        ),
    ]


def _border_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            side,
            default=0,
            min=0,
            max=16384,
            advanced=True,
            tooltip=f"For outpaint: pixels to repaint at the {side} edge. If all four are 0: an eighth of the picture "
            "on every side.",
        )
        for side in _SIDES
    ]


NODES = [GradPaintMaskGenerator]
