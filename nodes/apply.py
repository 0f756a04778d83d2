"""Apply GradPaint: a MODEL with which any sampler node downstream inpaints with GradPaint."""

from __future__ import annotations

from comfy_api.latest import io

from ..gradpaint.method.settings import AlignmentSettings, GuideSchedule, MemorySettings
from .guidance_inputs import CUSTOM, RECORDS, guidance_inputs, guidance_settings, keep_record_input, preset_input
from .host.report.record import LiveRecord
from .host.sampling.wrapper import apply_gradpaint
from .sockets import CATEGORY, Record


class GradPaintApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintApply",
            display_name="Apply GradPaint",
            category=CATEGORY,
            description="Applies GradPaint to a model. Any sampler node after it inpaints with GradPaint inside the "
            "noise mask of its latent (Set Latent Noise Mask). Without a noise mask it samples as usual.",
            search_aliases=["gradpaint model", "gradpaint patch", "inpaint model patch"],
            inputs=[
                io.Model.Input("model", tooltip="The model to inpaint with. A patched copy is passed on."),
                *guidance_inputs(),
                keep_record_input(),
                preset_input(),
            ],
            outputs=[
                io.Model.Output("model", display_name="MODEL", tooltip="For KSampler, SamplerCustom and others."),
                Record.Output(
                    "record",
                    tooltip="What the last run with this model did, available once a sampler has run. Connect the "
                    "sampler's result to GradPaint Report too, so that the report waits for the run.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        strength: float,
        normalization: str,
        alignment: AlignmentSettings | None = None,
        schedule: GuideSchedule | None = None,
        memory: MemorySettings | None = None,
        gradient: str = "model",
        alpha: float = 0.0,
        keep_record: str = RECORDS[0],
        preset: str = CUSTOM,
    ) -> io.NodeOutput:
        record = LiveRecord()
        settings = guidance_settings(strength, normalization, alignment, schedule, gradient, alpha, preset)
        return io.NodeOutput(apply_gradpaint(model, settings, record, memory, keep=keep_record == "pictures"), record)


NODES = [GradPaintApply]
