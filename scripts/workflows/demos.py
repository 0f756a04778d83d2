"""Workflows with the bundled model: they run as they are, without any files."""

from __future__ import annotations

from collections.abc import Mapping

from .chain import (
    INPUT,
    MODEL,
    PREVIEW_ROOM,
    RESULT,
    SAMPLE,
    bundled_model,
    decode_and_composite,
    encode,
    enlarged,
    scene_and_mask,
    side_by_side,
)
from .graph import Graph, Node

SETTINGS = dict(steps=50, cfg=1.0, sampler_name="ddim", scheduler="normal")
SEEN = {"masked_content": "neutral"}  # so that the pictures show where the hole was
NOTHING = "Nothing to download: the model comes with the pack, and *GradPaint Demo Scene* draws the picture."


def sample(
    g: Graph,
    model: Node,
    encoded: Node,
    seed: int = 7,
    type_: str = "GradPaintKSampler",
    patched=None,
    room: int = PREVIEW_ROOM,
    **options,
) -> Node:
    return g.add(
        type_,
        model=patched or model["model"],
        positive=model["positive"],
        negative=model["negative"],
        latent_image=encoded["LATENT"],
        seed=seed,
        wide=320,
        room=room,
        **{**SETTINGS, **options},
    )


def start(name: str, info: Mapping, text: str, note_height: int, scene: dict, mask: dict, **options):
    """The left part, in columns 0 to 2: (graph, loader, VAE, encode node, scene). Narrow, so that the frontend, which
    fits a template into the window, draws its text (it leaves out text that would be too small)."""
    g = Graph(name, info, column_gap=50)
    g.at(0, spans=True)
    g.note(text, (400, note_height))
    g.at(1, 0, MODEL)
    model, vae = bundled_model(g)
    g.at(1, 1, INPUT, spans=True)
    drawn, hole = scene_and_mask(g, scene, mask)
    g.at(2, 1, INPUT, spans=True)
    encoded = encode(g, drawn["IMAGE"], hole["MASK"], vae["VAE"], **options)
    return g, model, vae["VAE"], encoded, drawn


def quickstart(info: Mapping) -> dict:
    g, model, vae, encoded, _ = start(
        "gradpaint_quickstart",
        info,
        f"""# GradPaint quickstart

**Press Run.** {NOTHING}

The white area of the mask is repainted twice, from the same noise:

- **with GradPaint** (top): guided steps use the model's own gradient, so that lines and colors continue across the \
mask's border.
- **without** (bottom): ComfyUI's own KSampler.

**Try**
- another `seed` in the scene, the mask or the samplers (to compare, give both samplers the same seed)
- other kinds of mask: *box*, *half*, *outpaint*
- `strength` from 0 to 2: how strongly guidance acts
- *GradPaint Early-Stop Scheduler* at `schedule`, set to *full (every step)*

**Your own pictures and models**: replace the scene and the mask with *Load Image*, the bundled model and \
`pixel_space` with *Load Checkpoint* and its VAE, and the model's conditioning with prompts. The rest of the graph \
stays.
""",
        520,
        dict(seed=12),
        dict(kind="thick", seed=5),
        **SEEN,
    )
    g.at(3, 0, SAMPLE, spans=True)
    with_ = sample(g, model, encoded)
    without = sample(g, model, encoded, type_="KSampler", title="KSampler (without GradPaint)")
    g.at(4, 0, RESULT, spans=True)
    first = decode_and_composite(g, with_["LATENT"], vae, encoded)
    second = decode_and_composite(g, without["LATENT"], vae, encoded)
    strip = enlarged(g, side_by_side(g, [encoded["IMAGE"], first["IMAGE"], second["IMAGE"]]), 4.0)
    g.at(5, 0, RESULT, spans=True)
    g.add("PreviewImage", images=strip, title="Given - with GradPaint - without", box=(560, 290))
    for title, done, folder in (("With GradPaint", first, "with"), ("Without", second, "without")):
        g.add("SaveImage", images=done["IMAGE"], filename_prefix=f"gradpaint/{folder}", box=(560, 270), title=title)
    return g.build()


def compare_methods(info: Mapping) -> dict:
    methods = ("combine_noisy", "repaint", "dps")
    g, model, vae, encoded, drawn = start(
        "gradpaint_compare_methods",
        info,
        f"""# Methods side by side

**Press Run.** {NOTHING}

The same picture, mask and noise, inpainted with four methods that need no training. *Inpaint Method (baselines)* \
applies a method to the model, and ComfyUI's own KSampler runs it.

- **combine_noisy**: pastes the noised known region in at every step
- **repaint**: the same, with every stretch of the run sampled several times
- **dps**: a gradient at every step
- **GradPaint**: a gradient in the first 45% of the steps

**Change**
- `method` in the method nodes. *repaint* is slow: `resamplings` sets how many times each stretch is sampled
- the `seed`, in all samplers alike
- the model: use *Load Checkpoint* with its VAE
""",
        420,
        dict(seed=5),
        dict(kind="thick", seed=3),
        **SEEN,
    )
    strip = side_by_side(g, [drawn["IMAGE"], encoded["IMAGE"]])
    for band, method in enumerate(methods):
        g.at(3, band, SAMPLE)
        options = {"resamplings": 4} if method == "repaint" else {}
        patched = g.add(
            "GradPaintInpaintMethod",
            model=model["model"],
            method=method,
            title=f"Method: {method}",
            wide=320,
            **options,
        )
        g.at(4, band, SAMPLE)
        sampled = sample(
            g, model, encoded, type_="KSampler", patched=patched["MODEL"], title=f"KSampler: {method}", room=170
        )
        g.at(5, band, SAMPLE)
        strip = side_by_side(g, [strip, decode_and_composite(g, sampled["LATENT"], vae, encoded)["IMAGE"]])
    g.at(4, len(methods), SAMPLE)
    sampled = sample(g, model, encoded)
    g.at(5, len(methods), SAMPLE)
    strip = side_by_side(g, [strip, decode_and_composite(g, sampled["LATENT"], vae, encoded)["IMAGE"]])
    g.at(6, 0, RESULT, spans=True)
    title = " - ".join(("True", "given", *methods, "GradPaint"))
    g.add("PreviewImage", images=enlarged(g, strip, 3.0), title=title, box=(840, 260))
    return g.build()


def batch(info: Mapping) -> dict:
    g, model, vae, encoded, _ = start(
        "gradpaint_batch",
        info,
        f"""# A batch, each picture with its own mask

**Press Run.** {NOTHING}

Four scenes and four masks: the first mask belongs to the first picture, and so on. All are inpainted in one run.

**Your own pictures**: use a batch of pictures of one size and as many masks, or one mask for all of them.

**Change**
- `batch_size`, in the scene and the mask alike
- `batch_size` of the mask to 1, for one mask on all pictures
""",
        300,
        dict(seed=20, batch_size=4),
        dict(kind="thick", batch_size=4, seed=11),
        **SEEN,
    )
    g.at(3, 0, SAMPLE, spans=True)
    sampled = sample(g, model, encoded)
    g.at(4, 0, RESULT, spans=True)
    done = decode_and_composite(g, sampled["LATENT"], vae, encoded)
    larger = [enlarged(g, images, 4.0) for images in (encoded["IMAGE"], done["IMAGE"])]
    g.at(5, 0, RESULT, spans=True)
    for title, images in zip(("Given", "Inpainted"), larger):
        g.add("PreviewImage", images=images, title=title, box=(420, 440))
    return g.build()


def report(info: Mapping) -> dict:
    g, model, vae, encoded, _ = start(
        "gradpaint_report",
        info,
        f"""# What a run did

**Press Run.** {NOTHING}

- **GradPaint Report**: model evaluations, backward passes, time, memory, when guidance stopped, and whether the \
known region is untouched
- **timeline**: the model's estimate of the image, from step to step
- **gradients**: where each loss term acted, at some of the guided steps
- **losses**: the loss curves

The sampler's `keep_record` is set to *pictures*. *losses* costs nothing extra and keeps only the curves and the report.
""",
        320,
        dict(seed=12),
        dict(kind="thick", seed=5),
    )
    g.at(3, 0, SAMPLE, spans=True)
    sampled = sample(g, model, encoded, keep_record="pictures")
    g.at(4, 0, RESULT, spans=True)
    done = decode_and_composite(g, sampled["LATENT"], vae, encoded)
    pictures = g.add("GradPaintPictures", record=sampled["record"], wide=300)
    g.at(5, 0, RESULT, spans=True)
    g.add(
        "GradPaintReport", record=sampled["record"], result=done["IMAGE"], stitch=encoded["stitch"], box=(600, 310)
    )  # the frontend shows 200 pixels of text and scrolls the rest
    for name, height in (("timeline", 250), ("gradients", 330), ("losses", 380)):  # 250: the frontend's least
        g.add("PreviewImage", images=pictures[name], title=name.capitalize(), box=(600, height))
    return g.build()
