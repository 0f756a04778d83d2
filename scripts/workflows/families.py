"""One workflow per model family, with the nodes, files and settings of ComfyUI's own templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .chain import INPUT, MODEL, PREVIEW, PREVIEW_ROOM, PROMPT, RESULT, SAMPLE, decode_and_composite, encode, load_image
from .graph import Graph, Out

HUB = "https://huggingface.co"
POSITIVE = "a stone bridge over a quiet river, autumn trees, soft morning light"


@dataclass(frozen=True)
class File:
    """A model file: where it belongs in models/, and where it can be had."""

    folder: str
    name: str
    page: str  # below HUB, without the name

    def offer(self) -> dict:
        return {"name": self.name, "url": f"{HUB}/{self.page}/{self.name}", "directory": self.folder}


@dataclass(frozen=True)
class Family:
    """load(graph) -> (MODEL, CLIP, VAE); sampler: what the GradPaint KSampler is set to."""

    name: str
    title: str
    load: Callable[[Graph], tuple[Out, Out, Out]]
    files: tuple[File, ...]
    sampler: Mapping
    size: int  # target_size: the model works at the area of a square of that side
    remark: str
    negative: str | None = ""  # None: no negative prompt, the positive one zeroed
    guidance: float | None = None  # FluxGuidance
    alignment: bool = False
    encode: Mapping = field(default_factory=dict)  # of GradPaint Inpaint Encode, besides the size


SD15 = File(
    "checkpoints", "v1-5-pruned-emaonly-fp16.safetensors", "Comfy-Org/stable-diffusion-v1-5-archive/resolve/main"
)
SDXL = File("checkpoints", "sd_xl_base_1.0.safetensors", "stabilityai/stable-diffusion-xl-base-1.0/resolve/main")
SD35 = File("checkpoints", "sd3.5_large_fp8_scaled.safetensors", "Comfy-Org/stable-diffusion-3.5-fp8/resolve/main")
FLUX = File("diffusion_models", "flux1-dev.safetensors", "Comfy-Org/flux1-dev/resolve/main")
CLIP_L = File("text_encoders", "clip_l.safetensors", "comfyanonymous/flux_text_encoders/resolve/main")
T5 = File("text_encoders", "t5xxl_fp16.safetensors", "comfyanonymous/flux_text_encoders/resolve/main")
T5_FP8 = File("text_encoders", "t5xxl_fp8_e4m3fn_scaled.safetensors", "comfyanonymous/flux_text_encoders/resolve/main")
AE = File("vae", "ae.safetensors", "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae")
QWEN = tuple(
    File(folder, name, f"Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/{folder}")
    for folder, name in (
        ("diffusion_models", "qwen_image_fp8_e4m3fn.safetensors"),
        ("text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors"),
        ("vae", "qwen_image_vae.safetensors"),
    )
)
Z_IMAGE = File(
    "diffusion_models", "z_image_bf16.safetensors", "Comfy-Org/z_image/resolve/main/split_files/diffusion_models"
)
QWEN3 = File("text_encoders", "qwen_3_4b.safetensors", "Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders")
RADIANCE = File(
    "diffusion_models",
    "chroma-radiance-x0.safetensors",
    "Comfy-Org/Chroma1-Radiance_Repackaged/resolve/main/split_files/diffusion_models",
)
WAN = tuple(
    File(folder, name, f"Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/{folder}")
    for folder, name in (
        ("diffusion_models", "wan2.1_t2v_1.3B_fp16.safetensors"),
        ("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
        ("vae", "wan_2.1_vae.safetensors"),
    )
)


def checkpoint(file: File) -> Callable:
    def load(g: Graph):
        node = g.add("CheckpointLoaderSimple", ckpt_name=file.name, wide=360, models=[file.offer()])
        return node["MODEL"], node["CLIP"], node["VAE"]

    return load


def parts(
    unet: File,
    clips: tuple[File, ...],
    kind: str,
    vae: File | None,
    shift: tuple[str, float] | None = None,
    t5_options: bool = False,
) -> Callable:
    """Diffusion model, text encoders and VAE in files of their own; vae None: pixel space."""

    def load(g: Graph):
        model = g.add("UNETLoader", unet_name=unet.name, wide=360, models=[unet.offer()])["MODEL"]
        offers = [c.offer() for c in clips]
        if len(clips) == 2:
            clip = g.add(
                "DualCLIPLoader", clip_name1=clips[0].name, clip_name2=clips[1].name, type=kind, wide=360, models=offers
            )["CLIP"]
        else:
            clip = g.add("CLIPLoader", clip_name=clips[0].name, type=kind, wide=360, models=offers)["CLIP"]
        loader = g.add(
            "VAELoader", vae_name=vae.name if vae else "pixel_space", wide=360, models=[vae.offer()] if vae else None
        )
        if t5_options:
            clip = g.add("T5TokenizerOptions", clip=clip, wide=360)["CLIP"]
        if shift:
            model = g.add(shift[0], model=model, shift=shift[1], wide=360)["MODEL"]
        return model, clip, loader["VAE"]

    return load


FAMILIES = (
    Family(
        "gradpaint_sd15",
        "SD 1.5",
        checkpoint(SD15),
        (SD15,),
        dict(steps=20, cfg=8.0, sampler_name="euler", scheduler="normal"),
        512,
        "Any SD 1.5 checkpoint works.",
        negative="text, watermark",
    ),
    Family(
        "gradpaint_sdxl",
        "SDXL",
        checkpoint(SDXL),
        (SDXL,),
        dict(steps=25, cfg=8.0, sampler_name="euler", scheduler="normal"),
        1024,
        "Any SDXL checkpoint works.",
        negative="text, watermark",
    ),
    Family(
        "gradpaint_sd35",
        "SD 3.5",
        checkpoint(SD35),
        (SD35,),
        dict(steps=20, cfg=4.0, sampler_name="euler", scheduler="sgm_uniform"),
        1024,
        "This checkpoint includes its text encoders.",
    ),
    Family(
        "gradpaint_flux",
        "Flux.1 dev",
        parts(FLUX, (CLIP_L, T5), "flux", AE),
        (FLUX, CLIP_L, T5, AE),
        dict(steps=20, cfg=1.0, sampler_name="euler", scheduler="simple"),
        1024,
        "Use the ordinary Flux.1 dev, not Flux Fill. Keep `cfg` at 1; *Flux Guidance* sets how closely the prompt is "
        "followed.",
        negative=None,
        guidance=3.5,
    ),
    Family(
        "gradpaint_qwen_image",
        "Qwen-Image",
        parts(QWEN[0], QWEN[1:2], "qwen_image", QWEN[2], ("ModelSamplingAuraFlow", 3.1)),
        QWEN,
        dict(steps=20, cfg=4.0, sampler_name="euler", scheduler="simple"),
        1328,
        "This is the text-to-image model, without an inpainting ControlNet. `video` in GradPaint Inpaint Encode is "
        "off: this VAE also takes videos, and a batch would otherwise become one video.",
        encode={"video": False},
    ),
    Family(
        "gradpaint_z_image",
        "Z-Image",
        parts(Z_IMAGE, (QWEN3,), "lumina2", AE, ("ModelSamplingAuraFlow", 3.0)),
        (Z_IMAGE, QWEN3, AE),
        dict(steps=25, cfg=4.0, sampler_name="res_multistep", scheduler="simple"),
        1024,
        "For Z-Image-Turbo, pick its file and set `steps` to 8 and `cfg` to 1.",
    ),
    Family(
        "gradpaint_chroma_radiance",
        "Chroma1-Radiance",
        parts(RADIANCE, (T5_FP8,), "chroma", None, ("ModelSamplingAuraFlow", 1.0), t5_options=True),
        (RADIANCE, T5_FP8),
        dict(steps=30, cfg=3.5, sampler_name="euler", scheduler="beta"),
        1024,
        "This model works on pixels (`pixel_space` instead of a VAE), so the loss set in *GradPaint Alignment Loss* is "
        "active: edges and colors should continue across the mask's border. Its weight is `lambda_al`.",
        negative="low quality, blurred, flawed",
        alignment=True,
    ),
)


def file_list(files: tuple[File, ...]) -> str:
    return "\n".join(f"- `models/{f.folder}/` [{f.name}]({f.offer()['url']})" for f in files)


def note(title: str, what: str, files: tuple[File, ...], remark: str) -> str:
    return f"""# Inpainting with {title}

{what}

**Files**
{file_list(files)}

**Steps**
1. Pick the files in the loaders.
2. Choose a picture in *Load Image*, right-click it, choose *Open in Mask Editor* and paint over what should change.
3. Describe what the painted area should show, and press Run.

{remark}

**Change**
- `strength` of the sampler, 0 to 2: how strongly guidance acts
- `denoise` below 1, to keep some of what was under the mask
- `area` of GradPaint Inpaint Encode: *around the mask* for a small hole in a large picture
- *GradPaint Early-Stop Scheduler* at `schedule`: how many steps are guided. Each one costs a backward pass
"""


def build(family: Family, info: Mapping) -> dict:
    g = Graph(family.name, info)
    g.at(0, spans=True)
    g.note(
        note(
            family.title,
            "Repaints the painted area of a picture with an ordinary model; no inpainting model is needed. "
            "Outside it and a narrow blending band, every pixel stays as it is.",
            family.files,
            family.remark,
        ),
        (420, 470),
    )
    g.at(1, 0, MODEL)
    model, clip, vae = family.load(g)
    g.at(1, 1, INPUT)
    picture = load_image(g)
    g.at(2, 1, INPUT)
    encoded = encode(g, picture["IMAGE"], picture["MASK"], vae, target_size=family.size, **family.encode)
    g.at(2, 0, PROMPT)
    positive = g.add(
        "CLIPTextEncode", title="Prompt: what the painted area should show", text=POSITIVE, clip=clip, box=(400, 130)
    )["CONDITIONING"]
    if family.negative is None:
        negative = g.add("ConditioningZeroOut", conditioning=positive, wide=400)["CONDITIONING"]
    else:
        negative = g.add("CLIPTextEncode", title="Negative prompt", text=family.negative, clip=clip, box=(400, 100))[
            "CONDITIONING"
        ]
    if family.guidance is not None:
        positive = g.add("FluxGuidance", conditioning=positive, guidance=family.guidance, wide=400)["CONDITIONING"]
    g.at(3, 0, SAMPLE, spans=True)
    alignment = {"alignment": g.add("GradPaintAlignmentLoss", wide=320)["alignment"]} if family.alignment else {}
    sampled = g.add(
        "GradPaintKSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=encoded["LATENT"],
        seed=1,
        control="randomize",
        wide=320,
        room=PREVIEW_ROOM,
        **family.sampler,
        **alignment,
    )
    g.at(4, 0, RESULT, spans=True)
    done = decode_and_composite(g, sampled["LATENT"], vae, encoded)
    g.add("SaveImage", images=done["IMAGE"], filename_prefix=family.name.replace("_", "/", 1), box=PREVIEW)
    return g.build()
