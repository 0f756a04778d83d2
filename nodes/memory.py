"""GradPaint Memory: how guided steps use memory."""

from __future__ import annotations

from comfy_api.latest import io

from ..gradpaint.method.settings import MEMORY_MODES, MemorySettings
from .sockets import CATEGORY, Memory

_DEFAULT = MemorySettings()


class GradPaintMemory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintMemory",
            display_name="GradPaint Memory",
            category=CATEGORY,
            description="How guided steps use memory. They need more of it than plain steps, for the backward pass. "
            "Recomputing blocks of the model saves memory and takes longer. The image stays the same.",
            search_aliases=["gradpaint vram", "gradpaint out of memory", "gradient checkpointing", "low vram"],
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=list(MEMORY_MODES),
                    default=_DEFAULT.mode,
                    tooltip="auto: recompute as many of the model's blocks as the free memory requires. fastest: "
                    "recompute none; an error if that does not fit. low memory: recompute all. lowest memory: "
                    "recompute all, and keep their inputs in the computer's main memory.",
                ),
                io.Boolean.Input(
                    "allow_without_gradient",
                    default=_DEFAULT.allow_without_gradient,
                    tooltip="If the backward pass does not fit into memory at all. On: the run continues with the "
                    "cheap stand-in `gradient` x0 and says so in the log. Off: it stops with an error.",
                ),
            ],
            outputs=[
                Memory.Output("memory", tooltip="For the GradPaint KSamplers, Apply GradPaint and GradPaint Sampler.")
            ],
        )

    @classmethod
    def execute(cls, mode: str, allow_without_gradient: bool) -> io.NodeOutput:
        return io.NodeOutput(MemorySettings(mode=mode, allow_without_gradient=allow_without_gradient))


NODES = [GradPaintMemory]
