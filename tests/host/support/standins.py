"""Loaders for the example workflows that give tiny random models in place of the files: the same family, built by the
host's own classes, a VAE of the same channels and ratio, and conditioning of the right shape for any prompt.
"""

from __future__ import annotations

import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import zoo
import zoo_more
from PIL import Image

WIDTH, HEIGHT, FRAMES = 96, 50, 5

# File name in the workflows -> family of the model; of a VAE: what it is built like.
MODELS = {
    "v1-5-pruned-emaonly-fp16.safetensors": "sd15",
    "sd_xl_base_1.0.safetensors": "sdxl",
    "sd3.5_large_fp8_scaled.safetensors": "sd35",
    "flux1-dev.safetensors": "flux",
    "qwen_image_fp8_e4m3fn.safetensors": "qwen_image",
    "z_image_bf16.safetensors": "z_image",
    "wan2.1_t2v_1.3B_fp16.safetensors": "wan21",
    "chroma-radiance-x0.safetensors": "chroma_radiance",
}
CHECKPOINT_VAES = {"sd15": 4, "sdxl": 4, "sd35": 16}  # channels of the VAE in the checkpoint
VAES = {"ae.safetensors": 16, "qwen_image_vae.safetensors": "wan", "wan_2.1_vae.safetensors": "wan"}
CLIP_TYPES = {
    "flux": "flux",
    "qwen_image": "qwen_image",
    "lumina2": "z_image",
    "wan": "wan21",
    "chroma": "chroma_radiance",
}  # `type` of the CLIP loaders -> family
FOLDERS = {
    "checkpoints": (
        "v1-5-pruned-emaonly-fp16.safetensors",
        "sd_xl_base_1.0.safetensors",
        "sd3.5_large_fp8_scaled.safetensors",
    ),
    "diffusion_models": tuple(name for name in MODELS if "v1-5" not in name and not name.startswith("sd")),
    "vae": tuple(VAES),
    "text_encoders": (
        "clip_l.safetensors",
        "t5xxl_fp16.safetensors",
        "t5xxl_fp8_e4m3fn_scaled.safetensors",
        "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "qwen_3_4b.safetensors",
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    ),
}


def empty_files(models: Path) -> None:
    """Files of the right names, so that the host offers them; nothing reads them."""
    for folder, names in FOLDERS.items():
        (models / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (models / folder / name).touch()


def write_inputs(folder: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    """example.png, a drawn landscape with a mask in its alpha channel, and example.mp4."""
    import av

    from gradpaint.models.scenes import landscapes

    folder.mkdir(parents=True, exist_ok=True)
    side = 8 * -(-max(width, height) // 8)
    pixels = ((landscapes([3], side)[0].movedim(0, -1).numpy() + 1) * 127.5).round().astype(np.uint8)[:height, :width]
    y, x = np.mgrid[:height, :width]
    hole = ((x / width - 0.5) / 0.2) ** 2 + ((y / height - 0.5) / 0.3) ** 2 < 1
    alpha = np.where(hole, 0, 255).astype(np.uint8)  # transparent is what the host's Load Image gives as mask
    Image.fromarray(np.dstack([pixels, alpha])).save(folder / "example.png")
    with av.open(str(folder / "example.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(16), width=width - width % 2, height=height - height % 2)
        stream.pix_fmt = "yuv420p"
        for shift in range(FRAMES):
            frame = np.roll(pixels[: stream.height, : stream.width], shift, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(stream.encode())


def model(family: str):
    source = zoo if family in zoo.FAMILIES else zoo_more
    return source.build(family, None, None) if source is zoo else source.build(family)


def _taesd(channels: int):
    from comfy.taesd.taesd import TAESD

    return TAESD(latent_channels=channels)


def _wan_vae():
    from comfy.ldm.wan.vae import WanVAE

    return WanVAE(
        dim=8,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        image_channels=3,
        conv_out_channels=3,
        dropout=0.0,
    )


def vae(kind):
    """The host's VAE around random weights, 8 pixels to a cell: TAESD of that many channels, or "wan"."""
    import comfy.sd

    with torch.no_grad():
        tiny = _wan_vae() if kind == "wan" else _taesd(kind)
        zoo._randomise(tiny, 0)
        weights = {name: p.clone() for name, p in tiny.state_dict().items()}
    for name, value in (("vae_scale", 1.0), ("vae_shift", 0.0)):
        if name in weights:
            weights[name].fill_(value)
    return comfy.sd.VAE(sd=weights)


class Clip:
    """Answers what text nodes ask of a CLIP, with random embeddings that depend on the text only."""

    def __init__(self, family: str):
        self.family = family

    def clone(self) -> Clip:
        return Clip(self.family)

    def set_tokenizer_option(self, name, value) -> None:
        pass

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str):
        source = zoo if self.family in zoo.FAMILIES else zoo_more
        return source.conditioning(self.family, seed=zlib.crc32(tokens.encode()))


def loaders(host_nodes) -> dict[str, type]:
    """{node type: its stand-in}: the host's node class with another way to load."""
    mapping = host_nodes.NODE_CLASS_MAPPINGS

    class CheckpointLoaderSimple(mapping["CheckpointLoaderSimple"]):
        def load_checkpoint(self, ckpt_name):
            family = MODELS[ckpt_name]
            return model(family), Clip(family), vae(CHECKPOINT_VAES[family])

    class UNETLoader(mapping["UNETLoader"]):
        def load_unet(self, unet_name, weight_dtype):
            return (model(MODELS[unet_name]),)

    class CLIPLoader(mapping["CLIPLoader"]):
        def load_clip(self, clip_name, type="stable_diffusion", device="default"):
            return (Clip(CLIP_TYPES[type]),)

    class DualCLIPLoader(mapping["DualCLIPLoader"]):
        def load_clip(self, clip_name1, clip_name2, type, device="default"):
            return (Clip(CLIP_TYPES[type]),)

    class VAELoader(mapping["VAELoader"]):
        def load_vae(self, vae_name):
            return super().load_vae(vae_name) if vae_name == "pixel_space" else (vae(VAES[vae_name]),)

    return {cls.__name__: cls for cls in (CheckpointLoaderSimple, UNETLoader, CLIPLoader, DualCLIPLoader, VAELoader)}
