"""Inpaint Method (baselines): training-free methods to compare GradPaint with, as a patch on a MODEL."""

from __future__ import annotations

from comfy_api.latest import io

from ..gradpaint.method.settings import MemorySettings
from ..gradpaint.sampling.baselines.defaults import DEFAULT_JUMP_LENGTH, DEFAULT_RESAMPLINGS, DEFAULT_STEP, DEFAULT_ZETA
from .host.sampling.methods import NAMES, apply_method
from .sockets import CATEGORY, Memory


class GradPaintInpaintMethod(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintInpaintMethod",
            display_name="Inpaint Method (baselines)",
            category=CATEGORY,
            description="For comparison: applies a training-free inpainting method to a model. Any sampler node after "
            "it inpaints with that method inside the noise mask of its latent. Without a noise mask it samples as "
            "usual.",
            search_aliases=[
                "repaint",
                "mcg",
                "dps",
                "combine image",
                "combine noisy",
                "inpaint baseline",
                "diffusion posterior sampling",
                "resampling",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to inpaint with. A patched copy is passed on."),
                io.Combo.Input(
                    "method",
                    options=list(NAMES),
                    default="repaint",
                    tooltip="combine_image: pastes the known region into every estimate. combine_noisy: pastes it, "
                    "noised, into every state. repaint: combine_noisy with resampling, at many times the cost. "
                    "mcg, dps: a gradient at every step; the GradPaint paper compares with mcg, not with dps. "
                    "gradpaint: GradPaint with its default settings; _fast guides the first half of the run, _full "
                    "every step.",
                ),
                *_method_inputs(),
            ],
            outputs=[io.Model.Output("model", display_name="MODEL", tooltip="For KSampler, SamplerCustom and others.")],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        method: str,
        resamplings: int,
        jump_length: int,
        step: float,
        zeta: float,
        memory: MemorySettings | None = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            apply_method(
                model, method, resamplings=resamplings, jump_length=jump_length, step=step, zeta=zeta, memory=memory
            )
        )


def _method_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "resamplings",
            default=DEFAULT_RESAMPLINGS,
            min=1,
            max=1000,
            advanced=True,
            tooltip="repaint: how many times each stretch of the run is sampled. RePaint's paper: 10; 1 is "
            "combine_noisy.",
        ),
        io.Int.Input(
            "jump_length",
            default=DEFAULT_JUMP_LENGTH,
            min=1,
            max=10_000,
            advanced=True,
            tooltip="repaint: steps in a stretch. RePaint's paper: 10 of 250. A run with fewer steps is one stretch.",
        ),
        io.Float.Input(
            "step",
            default=DEFAULT_STEP,
            min=0.0,
            max=1000.0,
            step=0.05,
            advanced=True,
            tooltip="mcg: length of its gradient step. MCG's paper: 1, with 1000 sampling steps.",
        ),
        io.Float.Input(
            "zeta",
            default=DEFAULT_ZETA,
            min=0.0,
            max=1000.0,
            step=0.05,
            advanced=True,
            tooltip="dps: length of its gradient step. DPS's paper: 0.5, with 1000 sampling steps.",
        ),
        Memory.Input(
            "memory",
            optional=True,
            tooltip="From GradPaint Memory, for the methods that take gradients. Not connected: automatic.",
        ),
    ]


NODES = [GradPaintInpaintMethod]
