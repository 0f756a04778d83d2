"""GradPaint Memory: how guided steps make do with the memory that there is."""

from __future__ import annotations

from comfy_api.latest import io

from ..gradpaint.method.settings import MEMORY_MODES, MemorySettings
from .sockets import CATEGORY, Memory

_DEFAULT = MemorySettings()


class GradPaintMemory(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GradPaintMemory",
            display_name="GradPaint Memory",
            category=CATEGORY,
            description="How guided steps use memory. They need more of it than plain ones, for the backward pass; "
            "recomputing parts of the model needs less and takes longer. The image is the same.",
            search_aliases=["gradpaint vram", "gradpaint out of memory", "gradient checkpointing", "low vram"],
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=list(MEMORY_MODES),
                    default=_DEFAULT.mode,
                    tooltip="auto: recompute as many of the model's blocks as the free memory asks for. fastest: "
                    "none, and an error where that does not fit. low memory: all. lowest memory: all, and "
                    "what they need for it waits in the computer's main memory.",
                ),
                io.Boolean.Input(
                    "allow_without_gradient",
                    default=_DEFAULT.allow_without_gradient,
                    tooltip="Where the backward pass does not fit into memory in any way: on, the run goes on with the "
                    "cheap stand-in that `gradient` x0 is, and says so in the log; off, it ends with an "
                    "error.",
                ),
            ],
            outputs=[Memory.Output("memory", tooltip="For the GradPaint KSampler or Apply GradPaint.")],
        )

    @classmethod
    def execute(cls, mode: str, allow_without_gradient: bool) -> io.NodeOutput:
        return io.NodeOutput(MemorySettings(mode=mode, allow_without_gradient=allow_without_gradient))


NODES = [GradPaintMemory]
