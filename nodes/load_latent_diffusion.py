"""Load Latent Diffusion Model: a CompVis checkpoint as MODEL, VAE and CONDITIONING."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host import latent_diffusion as host
from .host.model_files import fingerprint
from .sockets import CATEGORY

WEIGHTS = ["auto", "ema", "model"]


class LoadLatentDiffusion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintLoadLatentDiffusion",
            display_name="Load Latent Diffusion Model",
            category=CATEGORY,
            description=(
                "Loads a latent diffusion model of CompVis/latent-diffusion with a VQ first stage: the GradPaint "
                "paper's CelebA-HQ, FFHQ and ImageNet models at 256 x 256. Models with text, such as Stable Diffusion, "
                "load with Load Checkpoint."
            ),
            search_aliases=["LDM", "CompVis", "VQ-f4", "CelebA-HQ", "FFHQ", "ImageNet", "cin256", "LSUN"],
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=host.checkpoint_names(),
                    tooltip="The complete checkpoint (model.ckpt, or the same weights as .safetensors) from "
                    "models/checkpoints or models/diffusion_models. Files that contain pickled code are refused.",
                ),
                io.Int.Input(
                    "class_label",
                    default=-1,
                    min=-1,
                    max=99999,
                    tooltip="Class of a class-conditional model, counted from 0 (ImageNet: 0-999). -1 for a model "
                    "without classes, or for no particular class.",
                ),
                io.Combo.Input(
                    "weights",
                    options=WEIGHTS,
                    default=WEIGHTS[0],
                    advanced=True,
                    tooltip="Which of the weights in the file to use. ema: averaged over the training. model: the last "
                    "ones. auto: averaged if the file has them.",
                ),
                io.Int.Input(
                    "head_channels",
                    default=0,
                    min=0,
                    max=4096,
                    advanced=True,
                    tooltip="Channels of each attention head (num_head_channels in config.yaml). 0: what the published "
                    "models have. The weights do not show it, and a wrong value gives wrong images without an error.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for any sampler node."),
                io.Vae.Output(display_name="vae", tooltip="The model's own VAE, for encoding and decoding."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="The class, or nothing for a model without classes."
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="No particular class, for cfg above 1. Models trained without it get the same as positive.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str, **_: Any) -> str | tuple[str, int, int]:
        return fingerprint(ckpt_name, host.checkpoint_path)

    @classmethod
    def execute(
        cls, ckpt_name: str, class_label: int, weights: str = WEIGHTS[0], head_channels: int = 0
    ) -> io.NodeOutput:
        settings = {"weights": weights, "num_head_channels": head_channels or None}
        model, vae, checkpoint = host.load(str(host.checkpoint_path(ckpt_name)), settings)
        label = None if class_label < 0 else class_label
        return io.NodeOutput(model, vae, host.conditioning(checkpoint, label), host.negative(checkpoint, label))


NODES = [LoadLatentDiffusion]
