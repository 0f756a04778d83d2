"""GradPaint Demo Scene: an input picture for the bundled model, so that the quickstart needs no files."""

from __future__ import annotations

from comfy_api.latest import io

from ..gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes
from .host.latents.convert import tensor_to_image
from .sockets import CATEGORY


class GradPaintDemoScene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintDemoScene",
            display_name="GradPaint Demo Scene",
            category=CATEGORY,
            description="Draws a landscape of the kind the bundled demo model knows, one it was not trained on.",
            search_aliases=["gradpaint example image", "procedural landscape", "test image"],
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=len(HELD_OUT_SEEDS) - 1,
                    control_after_generate=True,
                    tooltip="Which of the held-out scenes to draw. The same number gives the same picture on every "
                    "machine.",
                ),
                io.Int.Input(
                    "size",
                    default=64,
                    min=8,
                    max=1024,
                    step=8,
                    tooltip="Side of the square picture in pixels. The bundled model was trained at 64.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=256,
                    advanced=True,
                    tooltip="Number of pictures. Their seeds count up from the first.",
                ),
            ],
            outputs=[io.Image.Output("image", display_name="IMAGE", tooltip="The landscape.")],
        )

    @classmethod
    def execute(cls, seed: int, size: int, batch_size: int) -> io.NodeOutput:
        seeds = [HELD_OUT_SEEDS[(seed + i) % len(HELD_OUT_SEEDS)] for i in range(batch_size)]
        return io.NodeOutput(tensor_to_image(landscapes(seeds, size)))


NODES = [GradPaintDemoScene]
