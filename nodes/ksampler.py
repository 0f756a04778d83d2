"""GradPaint KSampler: ComfyUI's KSampler with GradPaint applied to the model."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..gradpaint.method.settings import AlignmentSettings, GuideSchedule, MemorySettings
from .guidance_inputs import (
    CUSTOM,
    RECORDS,
    guidance_inputs,
    guidance_settings,
    keep_record_input,
    preset_input,
    sampler_inputs,
)
from .host.latents.convert import masked_latent
from .host.latents.mask_check import check_keeps_something
from .host.report.record import RunRecord
from .host.sampling.ksample_segment import check_clean, with_handover
from .host.sampling.ksampler import ksample
from .host.sampling.wrapper import apply_gradpaint
from .sockets import CATEGORY, Record


class GradPaintKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintKSampler",
            display_name="GradPaint KSampler",
            category=CATEGORY,
            description="KSampler that inpaints with an ordinary model, without training: in guided steps, the "
            "model's own gradient makes the repainted region agree with the known one.",
            search_aliases=["gradpaint", "inpaint", "inpainting sampler", "gradient guided inpainting", "outpaint"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to inpaint with: an ordinary one, no inpainting model needed."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise. With the same seed, KSampler starts from the same noise.",
                ),
                *sampler_inputs(),
                io.Latent.Input(
                    "latent_image",
                    tooltip="The image to repair, encoded (VAE Encode; pixel_space for pixel models). At denoise 1, "
                    "the latent under the mask is not used.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1 repaints the hole from pure noise, as in the paper. Lower values keep some of what is "
                    "in it.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 (white) = repaint; gray values mix. Any size. Not connected: the latent's own noise "
                    "mask.",
                ),
                *guidance_inputs(),
                keep_record_input(),
                preset_input(),
            ],
            outputs=[
                io.Latent.Output(
                    "latent",
                    display_name="LATENT",
                    tooltip="The inpainted latent. Outside the mask it equals the input.",
                ),
                Record.Output(
                    "record",
                    tooltip="What the run did, for GradPaint Report and GradPaint Pictures. Empty at denoise 0.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        latent_image: dict,
        denoise: float,
        strength: float,
        normalization: str,
        mask: Tensor | None = None,
        alignment: AlignmentSettings | None = None,
        schedule: GuideSchedule | None = None,
        memory: MemorySettings | None = None,
        gradient: str = "model",
        alpha: float = 0.0,
        keep_record: str = RECORDS[0],
        preset: str = CUSTOM,
    ) -> io.NodeOutput:
        latent = masked_latent(latent_image, mask)
        records: list[RunRecord] = []
        check_keeps_something(latent["noise_mask"])
        check_clean(latent)
        settings = guidance_settings(strength, normalization, alignment, schedule, gradient, alpha, preset)
        guided = apply_gradpaint(
            model,
            settings,
            memory=memory,
            mask=latent["noise_mask"],
            on_record=records.append,
            keep=keep_record == "pictures",
        )
        latent = ksample(guided, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise)
        return io.NodeOutput(with_handover(latent, None), records[-1] if records else RunRecord())


NODES = [GradPaintKSampler]
