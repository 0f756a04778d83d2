"""GradPaint Alignment Loss: settings of the loss term that acts on the mask's border."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from ..gradpaint.method.settings import (
    ALIGNMENT_LOSSES,
    ALIGNMENT_SPACES,
    PAPER_ALIGNMENT_FRACTION,
    PAPER_LAMBDA_AL,
    AlignmentSettings,
)
from .host.latents.decoders import HostAlignment
from .sockets import CATEGORY, Alignment

_DEFAULT = AlignmentSettings()


class GradPaintAlignmentLoss(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintAlignmentLoss",
            display_name="GradPaint Alignment Loss",
            category=CATEGORY,
            description="Settings of the loss term that acts on the mask's border, where the known pixels are pasted "
            "in: our edge match or the paper's alignment loss. For pixel models; with latent models it is off unless "
            "`space` says how to view the latent as an image.",
            search_aliases=["gradpaint lambda_al", "seam loss", "border loss", "inpaint seam"],
            inputs=[
                *_loss_inputs(),
                # Last and optional: workflows and prompts saved before these inputs existed stay valid.
                io.Combo.Input(
                    "space",
                    options=list(ALIGNMENT_SPACES),
                    default=_DEFAULT.space,
                    optional=True,
                    tooltip="What the loss looks at with latent models. auto: nothing; the paper uses no alignment "
                    "loss there either. tiny: the image from a tiny decoder (TAESD family) in models/vae_approx, the "
                    "only choice that helped where measured. latent, rgb: the latent itself, or a linear projection "
                    "of it to colors; almost free, no gain measured. vae: the VAE connected below, slow and "
                    "memory-hungry. off: nothing, even with pixel models. Pixel models ignore the other choices.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="For space vae: the model's own VAE."),
                *_later_inputs(),
            ],
            outputs=[
                Alignment.Output(
                    "alignment", tooltip="For the GradPaint KSamplers, Apply GradPaint and GradPaint Sampler."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        lambda_al: float,
        border_width: int,
        softness: float,
        space: str = _DEFAULT.space,
        vae: io.Vae.Type | None = None,
        loss: str = _DEFAULT.loss,
        fraction: float = _DEFAULT.fraction,
    ) -> io.NodeOutput:
        settings = AlignmentSettings(lambda_al, border_width, softness, space, loss, fraction)
        if space == "vae":
            return io.NodeOutput(HostAlignment(**dataclasses.asdict(settings), vae=vae))
        return io.NodeOutput(settings)


def _loss_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "lambda_al",
            default=_DEFAULT.lambda_al,
            min=0.0,
            max=10_000.0,
            step=0.01,
            tooltip="Weight of this term in the total loss (eq. 8). 0 turns it off. It belongs to `loss`: 0.01 to 1 is "
            f"useful with edge-match; with alignment the paper uses {PAPER_LAMBDA_AL:g}.",
        ),
        io.Int.Input(
            "border_width",
            default=_DEFAULT.border_width,
            min=1,
            max=64,
            advanced=True,
            tooltip="Only for edge-match: how many pixels on each side of the mask's edge are compared.",
        ),
        io.Float.Input(
            "softness",
            default=_DEFAULT.softness,
            min=0.0,
            max=2.0,
            step=0.01,
            advanced=True,
            tooltip="Image gradients much smaller than this count as flat (pixel values range from -1 to 1). 0: eq. 7 "
            "to the letter, where even the faintest gradient counts fully.",
        ),
    ]


def _later_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "loss",
            options=list(ALIGNMENT_LOSSES),
            default=_DEFAULT.loss,
            optional=True,
            tooltip="edge-match: our own loss; compares the edges of the collage (the known pixels pasted into the "
            "model's estimate) with those of the estimate. Use a lambda_al of 0.01 to 1. alignment: eqs. 6-7 of the "
            "paper, on the collage, which should change as little as possible across the border. The masked MSE is "
            f"then scaled as in eq. 5 too. As in the paper: lambda_al {PAPER_LAMBDA_AL:g}, softness 0, fraction "
            f"{PAPER_ALIGNMENT_FRACTION:g}.",
        ),
        io.Float.Input(
            "fraction",
            default=_DEFAULT.fraction,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Share of the run's steps, from its start, during which this term counts; guidance as a whole may "
            f"end earlier. The paper's alignment loss: {PAPER_ALIGNMENT_FRACTION:g}.",
        ),
    ]


NODES = [GradPaintAlignmentLoss]
