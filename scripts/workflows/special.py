"""Workflows about one thing: cropping, outpainting, custom sampling, video."""

from __future__ import annotations

from collections.abc import Mapping

from . import demos, families
from .chain import INPUT, MODEL, PREVIEW, PREVIEW_ROOM, PROMPT, RESULT, SAMPLE, decode_and_composite, encode, load_image
from .graph import Graph


def crop_around_mask(info: Mapping) -> dict:
    g, model, vae, encoded, drawn = demos.start(
        "gradpaint_crop_around_mask",
        info,
        f"""# Crop around the mask

**Press Run.** {demos.NOTHING}

The picture is 256 pixels wide, and the model was trained at 64. With `area` set to *around the mask*, GradPaint \
Inpaint Encode crops the mask and its surroundings, at the size the model works at. GradPaint Composite puts the \
result back. Beyond the blending band, every pixel of the picture stays as it is.

**Change**
- `context`: how much of the surroundings the model sees, as a factor
- `target_size`: the size the model works at (512 for SD 1.5, 1024 for SDXL and Flux)
- `blend`: the width of the band where result and picture blend
""",
        340,
        dict(seed=3, size=256),
        dict(kind="ellipse", coverage=0.02, seed=1),
        area="around the mask",
        target_size=64,
        square=True,
    )
    g.at(3, 0, SAMPLE, spans=True)
    sampled = demos.sample(g, model, encoded)
    g.at(4, 0, RESULT, spans=True)
    done = decode_and_composite(g, sampled["LATENT"], vae, encoded)
    g.add("PreviewImage", images=encoded["IMAGE"], title="What the model gets", box=(300, 330))
    g.at(5, 0, RESULT, spans=True)
    g.add("PreviewImage", images=drawn["IMAGE"], title="Before", box=(440, 440))
    g.add("SaveImage", images=done["IMAGE"], filename_prefix="gradpaint/crop", title="After", box=(440, 440))
    return g.build()


def custom_sampling(info: Mapping) -> dict:
    g, model, vae, encoded, _ = demos.start(
        "gradpaint_custom_sampling",
        info,
        f"""# Custom sampling

**Press Run.** {demos.NOTHING}

*GradPaint Sampler* applies GradPaint to any sampler, for ComfyUI's *SamplerCustomAdvanced*, with any guider, noise \
and sigmas. The mask is the latent's own, from GradPaint Inpaint Encode.

**Change**
- the sampler in *KSamplerSelect*, the sigmas in *BasicScheduler*
- the guider: *BasicGuider* for Flux, *DualCFGGuider* or *PerpNegGuider* instead of *CFGGuider*
""",
        320,
        dict(seed=12),
        dict(kind="thick", seed=5),
        **demos.SEEN,
    )
    g.at(3, 0, SAMPLE, spans=True)
    noise = g.add("RandomNoise", noise_seed=7)
    guider = g.add("CFGGuider", model=model["model"], positive=model["positive"], negative=model["negative"], cfg=1.0)
    sigmas = g.add("BasicScheduler", model=model["model"], scheduler="normal", steps=50)
    plain = g.add("KSamplerSelect", sampler_name="ddim")
    wrapped = g.add("GradPaintSampler", sampler=plain["SAMPLER"])
    g.at(4, 0, SAMPLE, spans=True)
    sampled = g.add(
        "SamplerCustomAdvanced",
        noise=noise["NOISE"],
        guider=guider["GUIDER"],
        sampler=wrapped["SAMPLER"],
        sigmas=sigmas["SIGMAS"],
        latent_image=encoded["LATENT"],
        room=PREVIEW_ROOM,
    )
    g.at(5, 0, RESULT, spans=True)
    done = decode_and_composite(g, sampled["output"], vae, encoded)
    g.add("PreviewImage", images=encoded["IMAGE"], title="Given", box=PREVIEW)
    g.add("SaveImage", images=done["IMAGE"], filename_prefix="gradpaint/custom", title="Inpainted", box=PREVIEW)
    return g.build()


def outpainting(info: Mapping) -> dict:
    g = Graph("gradpaint_outpainting", info)
    g.at(0, spans=True)
    g.note(
        f"""# Outpainting with SDXL

Makes a picture larger by painting what lies beyond its edges. *GradPaint Inpaint Encode* adds the border and masks \
it, so you need not draw a mask. If you connect one to `mask`, that area is repainted as well.

**Files**
{families.file_list((families.SDXL,))}

**Steps**
1. Pick the checkpoint (any SDXL checkpoint works) and a picture.
2. Set `pad_left`, `pad_top`, `pad_right` and `pad_bottom` in GradPaint Inpaint Encode: pixels to add.
3. Describe the whole picture, and press Run.

**Change**
- `grow` of GradPaint Inpaint Encode: repaints a strip of the old picture too
- *GradPaint Early-Stop Scheduler* at `schedule`, set to *thorough*: guides for longer
""",
        (420, 420),
    )
    g.at(1, 0, MODEL)
    model, clip, vae = families.checkpoint(families.SDXL)(g)
    g.at(1, 1, INPUT)
    picture = load_image(g)
    g.at(2, 1, INPUT)
    encoded = encode(g, picture["IMAGE"], None, vae, pad_left=256, pad_right=256, target_size=1024)
    g.at(2, 0, PROMPT)
    positive, negative = (
        g.add("CLIPTextEncode", title=title, text=text, clip=clip, box=(400, height))["CONDITIONING"]
        for title, text, height in (
            ("Prompt: the whole picture", families.POSITIVE, 130),
            ("Negative prompt", "text, watermark, frame, border", 100),
        )
    )
    g.at(3, 0, SAMPLE, spans=True)
    sampled = g.add(
        "GradPaintKSampler",
        model=model,
        positive=positive,
        negative=negative,
        steps=25,
        cfg=8.0,
        seed=1,
        sampler_name="euler",
        scheduler="normal",
        control="randomize",
        latent_image=encoded["LATENT"],
        wide=320,
        room=PREVIEW_ROOM,
    )
    g.at(4, 0, RESULT, spans=True)
    done = decode_and_composite(g, sampled["LATENT"], vae, encoded)
    g.add("SaveImage", images=done["IMAGE"], filename_prefix="gradpaint/outpainting", box=PREVIEW)
    return g.build()


WAN_NOTE = f"""# Inpainting a video with Wan 2.1

Repaints what is under the mask in every frame, with the ordinary text-to-video model. Here one mask serves all \
frames; a batch of masks, one per frame, works too.

**Files**
{families.file_list(families.WAN)}

**Steps**
1. Pick the files in the loaders and a short video in *Load Video*. `target_size` 632 has as many pixels as 832 x 480.
2. Choose the mask in *GradPaint Mask Generator*, or connect your own to GradPaint Inpaint Encode.
3. Describe what the video should show, and press Run.

**Memory**: guided steps of a video need a lot. Use fewer frames, a smaller size, or *GradPaint Memory* at `memory`.
"""


def wan_video(info: Mapping) -> dict:
    g = Graph("gradpaint_wan21_video", info)
    g.at(0, spans=True)
    g.note(WAN_NOTE, (420, 430))
    g.at(1, 0, MODEL)
    model, clip, vae = families.parts(
        families.WAN[0], families.WAN[1:2], "wan", families.WAN[2], ("ModelSamplingSD3", 8.0)
    )(g)
    g.at(1, 1, INPUT)
    video = g.add("LoadVideo", file="example.mp4", box=(360, 390))
    frames = g.add("GetVideoComponents", video=video["VIDEO"])
    g.at(2, 1, INPUT)
    hole = g.add("GradPaintMaskGenerator", size_from=frames["images"], kind="ellipse", coverage=0.1, box=(320, 460))
    g.at(3, 1, INPUT)
    encoded = encode(g, frames["images"], hole["MASK"], vae, target_size=632)
    g.at(2, 0, PROMPT)
    texts = (
        ("Prompt", "a red balloon floats over a meadow, gentle wind, daylight"),
        ("Negative prompt", "overexposed, static, blurred, subtitles, low quality, JPEG artifacts"),
    )
    positive, negative = (
        g.add("CLIPTextEncode", title=title, text=text, clip=clip, box=(400, 130))["CONDITIONING"]
        for title, text in texts
    )
    g.at(4, 0, SAMPLE, spans=True)
    sampled = g.add(
        "GradPaintKSampler",
        model=model,
        positive=positive,
        negative=negative,
        steps=30,
        cfg=6.0,
        seed=1,
        sampler_name="uni_pc",
        scheduler="simple",
        control="randomize",
        latent_image=encoded["LATENT"],
        wide=320,
        room=PREVIEW_ROOM,
    )
    g.at(5, 0, RESULT, spans=True)
    done = decode_and_composite(g, sampled["LATENT"], vae, encoded)
    made = g.add("CreateVideo", images=done["IMAGE"], fps=frames["fps"], audio=frames["audio"], omit=("bit_depth",))
    g.add("SaveVideo", video=made["VIDEO"], filename_prefix="gradpaint/video", box=PREVIEW)
    return g.build()


ALL = (outpainting, crop_around_mask, custom_sampling, wan_video)
NAMES = ("gradpaint_outpainting", "gradpaint_crop_around_mask", "gradpaint_custom_sampling", "gradpaint_wan21_video")
