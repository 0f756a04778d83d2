"""What the paper's tables and figures consist of: columns, masks, rows in its order, and what is uncertain about them.

Grechka, Couairon, Cord: "GradPaint: Gradient-Guided Inpainting with Diffusion Models", sections 4-7 and appendices B-D.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...sampling.methods import METHODS

ANY = "images"  # the column of a table that names no data set
NO_KEY = "-"  # what paper/numbers.csv has there


@dataclass(frozen=True)
class Column:
    """A data set with the model that repaints it.

    Attributes:
        name: for --data NAME=FOLDER and its like.
        title: heading.
        images: where the images come from.
        model: the checkpoint that the paper used with them; "trained on" makes it a heading of its own.
        key: of the numbers' CSV.
        latent: whether the model works on latents; None: either kind will do.
        elsewhere: why no checkpoint can be given here, as a clause.
    """

    name: str
    title: str
    images: str
    model: str
    key: str
    latent: bool | None = False
    elsewhere: str | None = None


@dataclass(frozen=True)
class Mask:
    """A kind of mask with its options."""

    kind: str
    options: tuple[tuple[str, float], ...] = ()

    @property
    def title(self) -> str:
        values = ", ".join(f"{value:.0%}" for name, value in self.options if name in ("coverage", "probability"))
        return f"{self.kind.replace('_', ' ')} {values}".strip()

    @property
    def slug(self) -> str:
        return "_".join([self.kind, *(f"{value:g}" for _, value in self.options)])


@dataclass(frozen=True)
class Row:
    """A method of the paper, see `methodspec.parse_method`.

    Attributes:
        title: the paper's name for it.
        ours: what runs it as in the paper; None for a trained model of others, whose pictures the user has to supply.
        stand_in: the same with the steps of the run, for the bundled model.
        ticks: table 7's two columns, training-free and diffusion-based.
        share: of the run that is guided, fig. 9.
        latent: where a table takes either kind of model, this row is for latent ones.
    """

    title: str
    ours: str | None = None
    stand_in: str | None = None
    ticks: tuple[bool, bool] | None = None
    share: float | None = None
    latent: bool = False

    @property
    def method(self) -> str | None:
        return None if self.ours is None else self.ours.partition(":")[0]

    @property
    def needs_model(self) -> bool:
        """Whether it needs a diffusion model at all."""
        return self.method is not None and not METHODS[self.method].oracle

    def spec(self, stand_in: bool) -> str | None:
        return self.stand_in if stand_in and self.stand_in is not None else self.ours


@dataclass(frozen=True)
class Layout:
    """A table or figure.

    Attributes:
        name, title, columns, masks, rows: of the table.
        measures: in the CSV's names, in the paper's order.
        notes: what is uncertain about the paper's side, or different on ours.
        mask_key: of the numbers' CSV, where it is not the mask's slug.
        seeds: the paper's, how many outputs per image.
        stand_in_seeds: the same for a quick look with the bundled model.
        images: how many, where the user says nothing; None: all of the folder.
        stand_in_images: the same for the bundled model.
        ticks: show the rows' ticks.
        figure: drawn by `paper.figures` rather than laid out as a table.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    masks: tuple[Mask, ...]
    rows: tuple[Row, ...]
    measures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mask_key: str | None = None
    seeds: int = 1
    stand_in_seeds: int = 1
    images: int | None = None
    stand_in_images: int = 8
    ticks: bool = False
    figure: bool = False

    def key(self, column: Column, mask: Mask, row: str, measure: str) -> tuple[str, str, str, str, str]:
        """Of that cell in the numbers' CSV."""
        return self.name, column.key, self.mask_key or mask.slug, row, measure

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


_IMAGES = {
    "ffhq": "Flickr-Faces-HQ, from the ffhq-dataset project of NVlabs on GitHub",
    "celebahq": "CelebA-HQ, from the progressive_growing_of_gans project of tkarras on GitHub",
    "imagenet": "validation images of ILSVRC 2012, from image-net.org after registration; each image's own class by "
    "--labels",
    "places2": "validation images of Places365-Standard, from the Places2 project page of MIT",
    "coco": "validation images of MS-COCO, from cocodataset.org; each image's caption by --captions",
    ANY: "any images of the model's kind",
}
_TITLES = {"ffhq": "FFHQ", "celebahq": "CelebA-HQ", "imagenet": "ImageNet", "places2": "Places2", "coco": "COCO"}


def _column(
    name: str, model: str, latent: bool | None = False, title: str = "", elsewhere: str | None = None
) -> Column:
    title, key = title or _TITLES.get(name, ""), NO_KEY if name == ANY else name
    return Column(name, title, _IMAGES[name], model, key, latent, elsewhere)


_PIXEL = "a 256x256 guided-diffusion model trained on {}; the projects of RePaint and DPS link some"
_LATENT = "the complete checkpoint with its VQ first stage, from the latent-diffusion project of CompVis"
_COMFYUI = "Stable Diffusion through ComfyUI with the GradPaint nodes; --results takes the saved pictures"
FFHQ = _column("ffhq", _PIXEL.format("CelebA-HQ"))
CELEBAHQ = _column("celebahq", _PIXEL.format("FFHQ"))
IMAGENET = _column("imagenet", "256x256_diffusion.pt, class-conditional, from OpenAI's guided-diffusion project")
PLACES2 = _column("places2", _PIXEL.format("Places2"))
ANYTHING = _column(ANY, "a 256x256 guided-diffusion model; the paper does not say which")
ANY_KIND = _column(ANY, f"{ANYTHING.model}. GradPaint-Latent: a latent diffusion model, {_LATENT}", None)
LATENT_IMAGENET = _column("imagenet", f"the class-conditional latent diffusion model of ImageNet, {_LATENT}", True)
LATENT_COCO = _column("coco", "Stable Diffusion with each image's caption, in ComfyUI", True, elsewhere=_COMFYUI)
LATENT_FFHQ = _column("ffhq", f"the latent diffusion model of CelebA-HQ, {_LATENT}", True)

THIN, MEDIUM, THICK = Mask("thin"), Mask("medium"), Mask("thick")
COVERAGES = tuple(Mask("coverage", (("coverage", share),)) for share in (0.1, 0.25, 0.5, 0.75))
RANDOM_PIXELS = Mask("random_pixels", (("probability", 0.8),))

COPY, LATENT_COPY, GREYFILL = Row("COPY", "copy"), Row("latent COPY", "latent_copy"), Row("GREYFILL", "greyfill")
LAMA, PALETTE = Row("LaMa", ticks=(False, False)), Row("Palette", ticks=(False, True))
REPAINT = Row("RePaint", "repaint:steps=250,resamplings=10", "repaint", (True, True))
MCG = Row("MCG", "mcg:steps=1000", "mcg", (True, True))
NOISY, IMAGE = Row("Combine-noisy", "combine_noisy"), Row("Combine-image", "combine_image")
PAPER = "gradpaint:preset=paper"
GRADPAINT = Row("GradPaint", PAPER, ticks=(True, True))
FAST = Row("GradPaint-Fast", "gradpaint:preset=GradPaint-Fast", ticks=(True, True))
LATENT = Row("GradPaint", "gradpaint:preset=latent-paper")
LATENT_TIMED = Row("GradPaint-Latent", "gradpaint:preset=latent-paper", ticks=(True, True), latent=True)
WITHOUT_ALIGNMENT = Row("GradPaint without alignment loss", f"{PAPER},lambda_al=0")
FACES = (COPY, GREYFILL, LAMA, PALETTE, REPAINT, MCG, NOISY, IMAGE, GRADPAINT)

SHARES = (0.13, 0.25, 0.38, 0.5, 0.63, 0.75, 1.0)  # of the run that are guided; 1: the full run as reference
SWEEP = tuple(Row(f"guided for {share:.0%}", f"{PAPER},stop={share:g}", share=share) for share in SHARES)
QUALITY = ("fid", "lpips")

_UNSAID = (
    "The paper does not say which of its images and masks were used (5,000 masked images per table), nor the version "
    "of the LPIPS network's weights; FID's reference is not the inputs themselves, or COPY's would be 0.",
    "Eq. 9 with the L2 norm and 0.005 to the letter changes nothing visible, so the printed GradPaint rows come from "
    "some other normalization; see docs/paper.md.",
)
_BOLD = "Bold and underlined cells are not marked here."
_STEPS = "The paper does not give RePaint's and MCG's steps; here they are those of their own papers (250 and 1000)."

TABLES = (
    Layout("table1", "faces, thick masks", (FFHQ, CELEBAHQ), (THICK,), FACES, QUALITY, (*_UNSAID, _STEPS, _BOLD)),
    Layout(
        "table2",
        "class-conditional ImageNet, thick masks",
        (IMAGENET,),
        (THICK,),
        (NOISY, IMAGE, WITHOUT_ALIGNMENT, GRADPAINT),
        QUALITY,
        (*_UNSAID, "These FIDs lie below table 3's COPY on ImageNet, so the two tables have different references."),
    ),
    Layout(
        "table3",
        "latent models, thick masks",
        (LATENT_IMAGENET, LATENT_COCO, LATENT_FFHQ),
        (THICK,),
        (COPY, LATENT_COPY, GREYFILL, NOISY, IMAGE, LATENT),
        QUALITY,
        (
            *_UNSAID,
            "GREYFILL on FFHQ is 77.43 here and 78.08 in table 1.",
            "GradPaint on latents is the masked MSE alone, at every step. Latent COPY is the image encoded and "
            "decoded, with nothing pasted back.",
        ),
    ),
    Layout(
        "table4",
        "each pixel masked with probability 0.8",
        (_column("celebahq", CELEBAHQ.model, title="CelebA HQ"), PLACES2),
        (RANDOM_PIXELS,),
        (COPY, GREYFILL, LAMA, GRADPAINT),
        QUALITY,
        (*_UNSAID, "COPY's FID under CelebA HQ is FFHQ's in the other tables: these are probably FFHQ images."),
    ),
    Layout(
        "table7",
        "seconds per image",
        (ANY_KIND,),
        (THICK,),
        (LAMA, PALETTE, REPAINT, MCG, GRADPAINT, FAST, LATENT_TIMED),
        ("seconds",),
        (
            "The paper names neither its GPU nor its batch; compare ratios, not seconds.",
            "MCG's 52 s against GradPaint's 66 s cannot be 1000 differentiated steps against 100, and the paper gives "
            "no number. Here MCG takes the 1000 of its own paper, with the bundled model as many as the others.",
            "GradPaint-Latent's row is only comparable on a latent model, and such a model runs no other row: "
            "give it in a run of its own.",
        ),
        mask_key=NO_KEY,
        images=8,
        ticks=True,
    ),
    Layout(
        "table8",
        "variance of image features over outputs of one image",
        (ANYTHING,),
        COVERAGES,
        (IMAGE, GRADPAINT),
        ("feature_variance_1e-3",),
        (
            "In the paper: 500 outputs of one input image. Which image, masks of what shape, and which weights and "
            "layer of Inception v3 is not said.",
            "Here: the last pooling layer (2048) of the network that FID uses, the unbiased variance over outputs, its "
            "mean over features, in units of 1e-3.",
        ),
        seeds=500,
        stand_in_seeds=4,
        images=1,
        stand_in_images=1,
    ),
    Layout(
        "table9", "faces, thin and medium masks", (FFHQ, CELEBAHQ), (THIN, MEDIUM), FACES, QUALITY, (*_UNSAID, _STEPS)
    ),
    Layout(
        "fig9",
        "quality against time: all gradients stopped early",
        (IMAGENET,),
        (THICK,),
        SWEEP,
        ("fid", "lpips", "seconds"),
        ("The figure's values are not printed in the paper. The full run is its reference.",),
    ),
)


def _figure(name: str, title: str, rows: tuple[Row, ...], seeds: int = 1, column: Column = ANY_KIND) -> Layout:
    one = 1  # image
    return Layout(
        name, title, (column,), (THICK,), rows, (), (), None, seeds, seeds, one, stand_in_images=one, figure=True
    )


ALIGNMENT_ALONE = f"{PAPER},lambda_mse=0"
BOTH_TO_THE_END = f"{PAPER},alignment_fraction=1"
FIGURES = (
    _figure("fig2", "estimates over the run", (NOISY, IMAGE, GRADPAINT)),
    _figure("fig3a", "gradient of each loss", (Row("GradPaint", BOTH_TO_THE_END),), column=ANYTHING),
    _figure(
        "fig3b",
        "estimates with each loss alone and with both",
        (Row("masked MSE", f"{PAPER},lambda_al=0"), Row("alignment", ALIGNMENT_ALONE), Row("both", PAPER)),
        column=ANYTHING,
    ),
    _figure("fig10", "samples from the same noise in each column", (IMAGE, GRADPAINT), seeds=8),
)
LAYOUTS = {layout.name: layout for layout in (*TABLES, *FIGURES)}
