"""GradPaint Inpaint Encode: makes the latent to repaint from an image and a mask of any size."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..gradpaint.image.crop import Area
from ..gradpaint.image.fill import FILLS
from ..gradpaint.image.prepare import Preparation, prepare
from .host.latents import vae as host_vae
from .host.latents.convert import check_finite, fit_mask, one_per_mask, tensor_to_mask, to_channels_first
from .sockets import CATEGORY, Stitch

AREAS = ("whole image", "around the mask")
SIDES = ("left", "top", "right", "bottom")


class GradPaintEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintEncode",
            display_name="GradPaint Inpaint Encode",
            category=CATEGORY,
            description="Takes an image and a mask of any size and makes the latent to repaint, with its noise mask. "
            "Can fill the hole, crop around it, extend the picture and edit the mask. GradPaint Composite puts the "
            "result back.",
            search_aliases=[
                "inpaint crop",
                "vae encode for inpainting",
                "set latent noise mask",
                "outpaint",
                "pad image",
                "fill masked area",
                "grow mask",
                "feather mask",
                "invert mask",
                "masked content",
            ],
            inputs=[
                *_main_inputs(),
                *_mask_inputs(),
                *_crop_inputs(),
                *_pad_inputs(),
                io.Boolean.Input(
                    "video",
                    default=True,
                    advanced=True,
                    tooltip="For video VAEs (Wan): the images are the frames of one video. Off: each image is a "
                    "picture of its own (Qwen-Image).",
                ),
                io.Mask.Input(
                    "context_mask",
                    optional=True,
                    advanced=True,
                    tooltip="For around the mask: the crop also includes what is white here.",
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        vae: io.Vae.Type,
        masked_content: str,
        invert_mask: bool,
        grow: int,
        area: str,
        target_size: int,
        feather: int,
        threshold: float,
        fill_holes: bool,
        context: float,
        context_pixels: int,
        square: bool,
        multiple: int,
        video: bool,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        **pads: int,
    ) -> io.NodeOutput:
        left, top, right, bottom = (pads[f"pad_{side}"] for side in SIDES)
        widths, pictures = (left, top, right, bottom), to_channels_first(image)
        if mask is None and not any(widths):
            raise ValueError(
                "mask is not connected, and no pad is set: connect a mask of what to repaint, or set "
                "pad_left, pad_top, pad_right or pad_bottom to extend the picture"
            )
        check_finite(pictures)
        if mask is not None:
            pictures = one_per_mask(pictures, mask)
        masks = [
            None if given is None else fit_mask(given, pictures, name)
            for given, name in ((mask, "mask"), (context_mask, "context_mask"))
        ]
        how = Preparation(
            masked_content,
            invert_mask,
            threshold,
            fill_holes,
            widths,
            grow,
            feather,
            Area(area == AREAS[1], context, context_pixels, square, target_size, host_vae.size_multiple(vae, multiple)),
        )
        starts = host_vae.frame_starts(vae, len(pictures)) if video and len(image) > 1 else ()
        ready = prepare(pictures, masks[0], how, host_vae.cell_size(vae), starts, masks[1])
        latent, ready = host_vae.encoded(vae, ready, starts)
        return io.NodeOutput(latent, ready.stitch, ready.image.movedim(1, -1).contiguous(), tensor_to_mask(ready.mask))


def _main_inputs() -> list[io.Input]:
    """What goes in, and what most graphs set."""
    return [
        io.Image.Input(
            "image",
            tooltip="The picture or pictures to repair, of any size. The frames of a video are a batch of pictures.",
        ),
        io.Vae.Input("vae", tooltip="The model's VAE; pixel_space for pixel models."),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="1 (white) = repaint; gray values mix. One mask for all images or one each, with the image's "
            "aspect ratio; several masks for one image give one picture each. May stay unconnected if a pad is set.",
        ),
        io.Combo.Input(
            "masked_content",
            options=list(FILLS),
            default=FILLS[0],
            tooltip="What the hole holds before sampling. fill: its surroundings, mirrored at the border and smooth "
            "farther in; best at denoise 1. original: what is there now, for denoise below 1. smooth: the "
            "surroundings, continued smoothly. neutral: gray. blur: what is there, strongly blurred. edge: the nearest "
            "known pixel. noise: random pixels.",
        ),
        io.Boolean.Input(
            "invert_mask", default=False, tooltip="For masks that are black where the picture is to be repainted."
        ),
        io.Int.Input(
            "grow",
            default=0,
            min=-1024,
            max=1024,
            tooltip="How many image pixels to grow the mask by, to include an object's edge. Negative values shrink "
            "it.",
        ),
        io.Combo.Input(
            "area",
            options=list(AREAS),
            default=AREAS[0],
            tooltip="What the model sees. around the mask: a crop, for small holes in large pictures; set target_size "
            "too.",
        ),
        io.Int.Input(
            "target_size",
            default=0,
            min=0,
            max=8192,
            step=8,
            tooltip="Resizes the picture or crop to as many pixels as a square of this side has. Use the size the "
            "model was trained at, such as 512 (SD1.5) or 1024 (SDXL, Flux). 0: no resizing.",
        ),
    ]


def _mask_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "feather",
            default=0,
            min=0,
            max=1024,
            advanced=True,
            tooltip="Width in pixels of a soft, gray edge around the mask, for Differential Diffusion and for "
            "blending. 0 keeps the mask's own edge.",
        ),
        io.Float.Input(
            "threshold",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            advanced=True,
            tooltip="Makes the mask black and white: values at or above this are repainted. 0 keeps gray.",
        ),
        io.Boolean.Input(
            "fill_holes",
            default=False,
            advanced=True,
            tooltip="Also repaints known spots that the mask encloses: circling an object is enough.",
        ),
    ]


def _crop_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "context",
            default=1.5,
            min=1.0,
            max=100.0,
            step=0.05,
            advanced=True,
            tooltip="For around the mask: the crop's width and height relative to the hole's.",
        ),
        io.Int.Input(
            "context_pixels",
            default=32,
            min=0,
            max=8192,
            advanced=True,
            tooltip="For around the mask: the model sees at least this many pixels around the hole.",
        ),
        io.Boolean.Input(
            "square",
            default=False,
            advanced=True,
            tooltip="For around the mask: makes the crop square, as far as the picture allows.",
        ),
        io.Int.Input(
            "multiple",
            default=0,
            min=0,
            max=1024,
            advanced=True,
            tooltip="Width and height become multiples of this, in whole latent cells. What is added at the right and "
            "bottom is cut off again at the end. 0: two latent cells; 64 for pixel_space.",
        ),
    ]


def _pad_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            f"pad_{side}",
            default=0,
            min=0,
            max=8192,
            advanced=True,
            tooltip=f"Outpainting: pixels to add and repaint at the {side}.",
        )
        for side in SIDES
    ]


def _outputs() -> list[io.Output]:
    return [
        io.Latent.Output(
            "latent",
            display_name="LATENT",
            tooltip="For the sampler. Includes the noise mask, so the sampler needs no other.",
        ),
        Stitch.Output(
            "stitch", tooltip="For GradPaint Composite: the original image, and where the latent belongs in it."
        ),
        io.Image.Output("image", display_name="IMAGE", tooltip="The image that was encoded."),
        io.Mask.Output(
            "mask",
            display_name="MASK",
            tooltip="What will be repainted. A latent cell is repainted if any of its pixels is.",
        ),
    ]


NODES = [GradPaintEncode]
