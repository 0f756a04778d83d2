"""GradPaint Report: a run in words."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..gradpaint.image.seam import border_contrast
from ..gradpaint.image.stitch import Stitch as StitchData
from .host.latents.convert import to_channels_first
from .host.report.record import LiveRecord, RunRecord
from .host.report.words import image_lines, show_in_node, summary_lines
from .sockets import CATEGORY, Record, Stitch


class GradPaintReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintReport",
            display_name="GradPaint Report",
            category=CATEGORY,
            description="Describes what a GradPaint run did: guided steps, model evaluations, time, memory, losses, "
            "when and why guidance stopped, whether the known region is untouched, and how visible the seam is.",
            search_aliases=["gradpaint summary", "inpaint statistics", "seam ratio", "vram report", "inpaint log"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                Record.Input("record", tooltip="From a GradPaint KSampler, Apply GradPaint or GradPaint Sampler."),
                io.MultiType.Input(
                    "result",
                    [io.Image, io.Latent],
                    optional=True,
                    tooltip="The sampler's latent or the finished image. Required with Apply GradPaint and GradPaint "
                    "Sampler, so that the report waits for the run.",
                ),
                Stitch.Input(
                    "stitch",
                    optional=True,
                    tooltip="From GradPaint Inpaint Encode. With the finished image as `result`, the report also "
                    "compares its pixels with the original.",
                ),
            ],
            outputs=[io.String.Output("summary", display_name="STRING", tooltip="The report, one line per fact.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")  # always runs: after a reload, the page has lost the text

    @classmethod
    def execute(
        cls, record: RunRecord | LiveRecord, result: Tensor | dict | None = None, stitch: StitchData | None = None
    ) -> io.NodeOutput:
        lines = summary_lines(record.of(result))
        if stitch is not None:
            lines += _of_image(result, stitch)
        text = "\n".join(lines)
        show_in_node(text.replace("\n", "  \n"), getattr(cls.hidden, "unique_id", None))  # Nodes 2.0 reads Markdown
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def _of_image(result: Tensor | dict | None, stitch: StitchData) -> list[str]:
    """The lines about the finished image's pixels; ValueError if `result` is not that image."""
    original, mask = stitch.image, stitch.mask
    if not isinstance(result, Tensor):
        raise ValueError(
            "stitch is connected, but result is not an IMAGE: connect GradPaint Composite's image, or disconnect stitch"
        )
    pictures = to_channels_first(result, "result")
    if pictures.shape[-2:] != original.shape[-2:] or len(pictures) % len(original):
        raise ValueError(
            f"result is {_size(pictures)}, but stitch belongs to {_size(original)}: connect GradPaint Composite's image"
        )
    repeats = len(pictures) // len(original)
    original, mask = (tensor.repeat(repeats, 1, 1, 1).to(pictures.device) for tensor in (original, mask))
    return image_lines(pictures, original, mask, border_contrast(pictures[:, :3], mask).cpu())


def _size(pictures: Tensor) -> str:
    return f"{len(pictures)} of {pictures.shape[-1]} x {pictures.shape[-2]}"


NODES = [GradPaintReport]
