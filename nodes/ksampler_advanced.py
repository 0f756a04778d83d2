"""GradPaint KSampler (Advanced): ComfyUI's KSampler (Advanced) with GradPaint applied to the model."""

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
from .host.sampling.ksample_segment import ksample_segment
from .sockets import CATEGORY, Record

SWITCH = ("enable", "disable")


class GradPaintKSamplerAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintKSamplerAdvanced",
            display_name="GradPaint KSampler (Advanced)",
            category=CATEGORY,
            description="GradPaint KSampler for one segment of a run. Several in a row make up the run, and may "
            "differ in model, prompt or strength.",
            search_aliases=[
                "gradpaint advanced",
                "inpaint start at step",
                "gradpaint leftover noise",
                "two stage inpainting",
                "gradpaint refiner",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to inpaint with: an ordinary one, no inpainting model needed."
                ),
                *_noise_inputs(),
                *sampler_inputs(steps="denoising steps of the whole run"),
                io.Latent.Input(
                    "latent_image",
                    tooltip="The image to repair, encoded. With add_noise disable: the output of the previous "
                    "GradPaint KSampler (Advanced), which carries the clean image along.",
                ),
                *_segment_inputs(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 (white) = repaint; gray values mix. Any size. Not connected: the latent's own noise "
                    "mask, which the previous node passes on.",
                ),
                *guidance_inputs(),
                keep_record_input(),
                preset_input(),
            ],
            outputs=[
                io.Latent.Output(
                    "latent",
                    display_name="LATENT",
                    tooltip="The inpainted latent. Once free of noise, it equals the input outside the mask.",
                ),
                Record.Output(
                    "record", tooltip="What this segment of the run did, for GradPaint Report and GradPaint Pictures."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        add_noise: str,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        latent_image: dict,
        start_at_step: int,
        end_at_step: int,
        return_with_leftover_noise: str,
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
        check_keeps_something(latent["noise_mask"])
        settings = guidance_settings(strength, normalization, alignment, schedule, gradient, alpha, preset)
        return io.NodeOutput(
            *ksample_segment(
                model,
                settings,
                latent,
                noise_seed,
                steps,
                cfg,
                sampler_name,
                scheduler,
                positive,
                negative,
                first=start_at_step,
                last=end_at_step,
                add_noise=add_noise == "enable",
                leave_noise=return_with_leftover_noise == "enable",
                memory=memory,
                keep=keep_record == "pictures",
            )
        )


def _noise_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "add_noise",
            options=list(SWITCH),
            advanced=True,
            tooltip="enable: this node starts from the clean latent and adds noise to it. disable: latent_image is "
            "already noisy and comes from another GradPaint KSampler (Advanced).",
        ),
        io.Int.Input(
            "noise_seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Seed of the noise. With the same seed, KSampler starts from the same noise.",
        ),
    ]


def _segment_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "start_at_step",
            default=0,
            min=0,
            max=10_000,
            advanced=True,
            tooltip="How many steps to skip at the start. With add_noise enable, skipping more keeps more of what is "
            "in the hole.",
        ),
        io.Int.Input(
            "end_at_step",
            default=10_000,
            min=0,
            max=10_000,
            advanced=True,
            tooltip="The step after which this node stops. Guided steps are counted over the whole run, not over this "
            "segment.",
        ),
        io.Combo.Input(
            "return_with_leftover_noise",
            options=["disable", "enable"],
            advanced=True,
            tooltip="enable: if this node stops early, the result keeps its noise, for another GradPaint KSampler "
            "(Advanced). disable: the last step removes all noise.",
        ),
    ]


NODES = [GradPaintKSamplerAdvanced]
