"""GradPaint Alignment Loss: how strongly colours and edges must continue across the mask's border."""

from __future__ import annotations

from comfy_api.latest import io

from ..gradpaint.method.settings import ALIGNMENT_SPACES, PAPER_LAMBDA_AL, AlignmentSettings
from .host.latents.decoders import HostAlignment
from .sockets import CATEGORY, Alignment

_DEFAULT = AlignmentSettings()


class GradPaintAlignmentLoss(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GradPaintAlignmentLoss",
            display_name="GradPaint Alignment Loss",
            category=CATEGORY,
            description="Settings of the alignment loss (eqs. 6-8): with the known pixels pasted in, edges and colours "
            "at the mask's border should run on as the model drew them. For models of pixels; with latent "
            "models it is off, as in the paper, unless `space` says how to see the latent as an image.",
            search_aliases=["gradpaint lambda_al", "seam loss", "border loss", "inpaint seam"],
            inputs=[
                io.Float.Input(
                    "lambda_al",
                    default=_DEFAULT.lambda_al,
                    min=0.0,
                    max=10_000.0,
                    step=0.01,
                    tooltip="Weight of the alignment loss in the total loss (eq. 8); 0 switches it off. Useful here: "
                    f"0.01 to 1. The paper uses {PAPER_LAMBDA_AL:g}, with losses scaled differently.",
                ),
                io.Int.Input(
                    "border_width",
                    default=_DEFAULT.border_width,
                    min=1,
                    max=64,
                    advanced=True,
                    tooltip="How many pixels on each side of the mask's edge are compared. The paper looks at the "
                    "pixels next to the edge: 1.",
                ),
                io.Float.Input(
                    "softness",
                    default=_DEFAULT.softness,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Image gradients much smaller than this count as flat (the data's range is 2). 0 is the "
                    "paper's eq. 7, where even the faintest gradient counts fully.",
                ),
                # Last and optional: workflows and prompts saved before these inputs were there stay valid.
                io.Combo.Input(
                    "space",
                    options=list(ALIGNMENT_SPACES),
                    default=_DEFAULT.space,
                    optional=True,
                    tooltip="What the loss looks at with latent models. auto: nothing, as in the paper. tiny: the "
                    "image of a tiny decoder (TAESD family) from models/vae_approx, which gained where "
                    "measured. latent, rgb: the latent itself or its projection to colours, next to free, "
                    "no gain measured. vae: the VAE connected below, slow and large. off: nothing, with models "
                    "of pixels too. Models of pixels ignore the rest.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="For space vae: the model's own VAE."),
            ],
            outputs=[Alignment.Output("alignment", tooltip="For the GradPaint KSampler or Apply GradPaint.")],
        )

    @classmethod
    def execute(
        cls, lambda_al: float, border_width: int, softness: float, space: str = _DEFAULT.space, vae=None
    ) -> io.NodeOutput:
        values = dict(lambda_al=lambda_al, border_width=border_width, softness=softness, space=space)
        return io.NodeOutput(HostAlignment(**values, vae=vae) if space == "vae" else AlignmentSettings(**values))


NODES = [GradPaintAlignmentLoss]
