"""GradPaint Pictures: a run's estimates, gradients and losses, after the paper's Figs. 2 and 3a."""

from __future__ import annotations

from comfy_api.latest import io
from PIL import Image

from ..gradpaint.drawing.run_pictures import as_image_batch
from .host.report.record import LiveRecord, RunRecord
from .host.report.run_pictures import gradients_of, losses_of, timeline_of
from .sockets import CATEGORY, Record


class GradPaintPictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintPictures",
            display_name="GradPaint Pictures",
            category=CATEGORY,
            description="Shows how a run of the GradPaint KSampler went: the model's estimate of the image from step "
            "to step, where each loss term acted, and the losses.",
            search_aliases=["x0_hat timeline", "gradient map", "loss curve", "gradpaint debug", "inpaint debug"],
            inputs=[
                Record.Input(
                    "record",
                    tooltip="From the GradPaint KSampler. Set its keep_record to pictures to get the timeline and the "
                    "gradients; the losses are always there.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The model's VAE, to show latents as full images. Not connected: ComfyUI's quick preview "
                    "colors, at the latent's size. Pixel models need none.",
                ),
                io.Int.Input(
                    "size",
                    default=192,
                    min=32,
                    max=1024,
                    optional=True,
                    tooltip="Longest side of each small picture, in pixels. Smaller ones are enlarged by a whole "
                    "factor.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "timeline",
                    tooltip="x0_hat, the model's estimate of the image before the known region is pasted in, at up to "
                    "8 steps, and below it the collage, with the known region; two rows per image of the batch.",
                ),
                io.Image.Output(
                    "gradients",
                    tooltip="How strongly each loss term acts on each place, at up to 4 guided steps, with the hole's "
                    "outline.",
                ),
                io.Image.Output(
                    "losses", tooltip="The losses over the run, averaged over the batch, on a logarithmic scale."
                ),
            ],
        )

    @classmethod
    def execute(cls, record: RunRecord | LiveRecord, vae: io.Vae.Type | None = None, size: int = 192) -> io.NodeOutput:
        record = record.last
        pictures = timeline_of(record, vae, size), gradients_of(record, size), losses_of(record)
        return io.NodeOutput(*(as_image_batch(p) if isinstance(p, Image.Image) else p for p in pictures))


NODES = [GradPaintPictures]
