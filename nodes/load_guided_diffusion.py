"""Load Guided-Diffusion Model: the bundled model or a guided-diffusion checkpoint as a MODEL."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..gradpaint.guided_diffusion import check_label
from .host import guided_diffusion as host
from .host.model_files import fingerprint
from .sockets import CATEGORY

AUTO = "auto"


class LoadGuidedDiffusion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintLoadGuidedDiffusion",
            display_name="Load Guided-Diffusion Model",
            category=CATEGORY,
            description="Loads a pixel-space diffusion model in the format of openai/guided-diffusion, the kind the "
            "GradPaint paper mainly uses in pixel space, or the small demo model that comes with this pack. It works "
            "on pixels: choose pixel_space in the VAE loader, and any sampler.",
            search_aliases=["ADM", "OpenAI guided diffusion", "pixel space model", "ImageNet", "FFHQ", "Places2"],
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=host.checkpoint_names(),
                    tooltip="The bundled 64 x 64 landscape model, or a .safetensors, .pt or .pth file from "
                    "models/guided_diffusion, models/diffusion_models or models/checkpoints. Files that contain "
                    "pickled code are refused.",
                ),
                io.Int.Input(
                    "class_label",
                    default=-1,
                    min=-1,
                    max=99999,
                    tooltip="Class for a class-conditional model, counted from 0 (ImageNet: 0-999). -1 for models "
                    "without classes. Class-conditional models have no empty class: leave cfg at 1.0, where the "
                    "negative conditioning is not used.",
                ),
                *_training_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for any sampler node."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="The class label, or nothing for a model without classes."
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The same as positive, since these models have no empty class: cfg has no effect.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str, **_: Any) -> str | tuple[str, int, int]:
        return fingerprint(ckpt_name, host.checkpoint_path)

    @classmethod
    def execute(
        cls, ckpt_name: str, class_label: int, noise_schedule: str, head_channels: int, attention_order: str
    ) -> io.NodeOutput:
        settings = {
            "noise_schedule": None if noise_schedule == AUTO else noise_schedule,
            "num_head_channels": head_channels or None,
            "use_new_attention_order": None if attention_order == AUTO else attention_order == "new",
        }
        model = host.load_model(str(host.checkpoint_path(ckpt_name)), settings)
        label = check_label(None if class_label < 0 else class_label, model.model.config.unet.num_classes)
        return io.NodeOutput(model, host.conditioning(label), host.conditioning(label))


def _training_inputs() -> list[io.Input]:
    """What the weights do not tell about how the model was trained."""
    return [
        io.Combo.Input(
            "noise_schedule",
            options=[AUTO, "linear", "cosine"],
            default=AUTO,
            advanced=True,
            tooltip="The noise schedule the model was trained with. auto: what the file says; otherwise cosine for the "
            "published ImageNet 64 x 64 model, else linear. The wrong one gives noisy or flat images.",
        ),
        io.Int.Input(
            "head_channels",
            default=0,
            min=0,
            max=4096,
            advanced=True,
            tooltip="Channels per attention head (training flag num_head_channels). 0: what the file says, otherwise "
            "64. The weights do not show it, and a wrong value gives wrong images without an error.",
        ),
        io.Combo.Input(
            "attention_order",
            options=[AUTO, "legacy", "new"],
            default=AUTO,
            advanced=True,
            tooltip="Channel order of the attention layers (training flag use_new_attention_order). auto: what the "
            "file says; otherwise new for the published ImageNet 64 x 64 model, else legacy.",
        ),
    ]


NODES = [LoadGuidedDiffusion]
