"""The part all workflows share: image and mask, GradPaint Inpaint Encode, sampler, VAE Decode, GradPaint Composite."""

from __future__ import annotations

from .graph import Graph, Node, Out

MODEL, INPUT, PROMPT, SAMPLE, RESULT = "Model", "Image and mask", "Prompt", "Inpaint", "Result"
BUNDLED = "landscapes64 (bundled)"
PICTURE = "example.png"  # comes with ComfyUI
PREVIEW = (300, 330)
PREVIEW_ROOM = 230  # below a sampler, where the frontend shows what it is making


def encode(g: Graph, image: Out, mask: Out | None, vae: Out, **options) -> Node:
    return g.add("GradPaintEncode", image=image, mask=mask, vae=vae, wide=320, **options)


def decode_and_composite(g: Graph, latent: Out, vae: Out, encoded: Node, **options) -> Node:
    decoded = g.add("VAEDecode", samples=latent, vae=vae)
    return g.add("GradPaintComposite", image=decoded["IMAGE"], stitch=encoded["stitch"], **options)


def load_image(g: Graph) -> Node:
    return g.add("LoadImage", image=PICTURE, box=(320, 360))


def bundled_model(g: Graph) -> tuple[Node, Node]:
    """Loader of the bundled model, and its VAE."""
    return (
        g.add("GradPaintLoadGuidedDiffusion", ckpt_name=BUNDLED, wide=320),
        g.add("VAELoader", vae_name="pixel_space", wide=320),
    )


def scene_and_mask(g: Graph, scene: dict, mask: dict) -> tuple[Node, Node]:
    drawn = g.add("GradPaintDemoScene", wide=320, **scene)
    hole = g.add("GradPaintMaskGenerator", size_from=drawn["IMAGE"], box=(320, 620), **mask)
    return drawn, hole


def side_by_side(g: Graph, images: list[Out]) -> Out:
    """One picture of all of them, from left to right."""
    strip = images[0]
    for image in images[1:]:
        strip = g.add("ImageStitch", image1=strip, image2=image, spacing_width=4)["IMAGE"]
    return strip


def enlarged(g: Graph, images: Out, scale: float) -> Out:
    return g.add("ImageScaleBy", image=images, upscale_method="nearest-exact", scale_by=scale)["IMAGE"]
