"""GradPaint Sampler: a SAMPLER with which SamplerCustom and SamplerCustomAdvanced inpaint with GradPaint."""

from __future__ import annotations

from comfy_api.latest import io

from ..gradpaint.method.settings import AlignmentSettings, GuideSchedule, MemorySettings
from .guidance_inputs import CUSTOM, RECORDS, guidance_inputs, guidance_settings, keep_record_input, preset_input
from .host.report.record import LiveRecord
from .host.sampling.guided_sampler import wrap_sampler
from .sockets import CATEGORY, Record


class GradPaintSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintSampler",
            display_name="GradPaint Sampler",
            category=CATEGORY,
            description="Applies GradPaint to a sampler, for SamplerCustom and SamplerCustomAdvanced with any guider. "
            "They inpaint inside the noise mask of their latent (Set Latent Noise Mask).",
            search_aliases=[
                "gradpaint custom sampler",
                "inpaint sampler custom",
                "inpaint guider",
                "SamplerCustomAdvanced inpaint",
                "gradpaint KSamplerSelect",
            ],
            inputs=[
                io.Sampler.Input(
                    "sampler",
                    tooltip="The sampler that takes the steps: KSamplerSelect or any other. Nodes that wrap a sampler "
                    "themselves go before this one.",
                ),
                *guidance_inputs(),
                keep_record_input(),
                preset_input(),
            ],
            outputs=[
                io.Sampler.Output(
                    "sampler",
                    display_name="SAMPLER",
                    tooltip="For SamplerCustom and SamplerCustomAdvanced. If GradPaint is applied to the model too, "
                    "this node's settings win.",
                ),
                Record.Output(
                    "record",
                    tooltip="What the last run with this sampler did, available once the sampling node has run. "
                    "Connect that node's result to GradPaint Report too, so that the report waits for the run.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        sampler: io.Sampler.Type,
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
        return io.NodeOutput(wrap_sampler(sampler, settings, record, memory, keep_record == "pictures"), record)


NODES = [GradPaintSampler]
