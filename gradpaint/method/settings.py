"""Settings of the method as frozen dataclasses. Every range is checked when the object is made.

The names are the paper's (Grechka, Couairon, Cord: "Gradient-Guided Inpainting with Diffusion Models"): `alpha` is the
step size of eq. 9, `lambda_al` and `lambda_mse` the weights of the two loss terms (eq. 8). `strength` is ours: it sets
alpha for every step so that the number of steps and their spacing do not matter (see `step`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

NORMALIZATIONS = ("rms", "l2")
SCHEDULE_MODES = ("fraction", "steps", "adaptive")
GRADIENTS = ("model", "cond", "x0")
BETWEEN = ("plain", "keep")
EDGE_MATCH, ALIGNMENT_LOSS = "edge-match", "alignment"
ALIGNMENT_LOSSES = (EDGE_MATCH, ALIGNMENT_LOSS)
ALIGNMENT_SPACES = ("auto", "off", "latent", "rgb", "tiny", "vae")

AUTO, FASTEST, LOW_MEMORY, LOWEST_MEMORY = "auto", "fastest", "low memory", "lowest memory"
MEMORY_MODES = (AUTO, FASTEST, LOW_MEMORY, LOWEST_MEMORY)

# The paper's own numbers, kept together so that nodes, command line and docs quote one place.
PAPER_ALPHA = 0.005
PAPER_LAMBDA_AL = 400.0
PAPER_ALIGNMENT_STEPS = 45  # the alignment loss is off after these; the masked MSE goes on
PAPER_TOTAL_STEPS = 100
PAPER_ALIGNMENT_FRACTION = PAPER_ALIGNMENT_STEPS / PAPER_TOTAL_STEPS
PAPER_FAST_FRACTION = 0.5  # GradPaint-Fast: everything off after half of the steps

DEFAULT_STRENGTH = 1.0
DEFAULT_LAMBDA_AL = 0.1
DEFAULT_SOFTNESS = 0.5
DEFAULT_FRACTION = 0.45
DEFAULT_STEPS = 45
# Of the adaptive early stop; chosen by measurement, benchmarks/results/early_stop.md.
DEFAULT_MINIMUM = 0.3
DEFAULT_MAXIMUM = 1.0
DEFAULT_PATIENCE = 0.15
DEFAULT_TOLERANCE = 0.05

Number = TypeVar("Number", int, float)


def check_number(name: str, value: Number, low: float, high: float, *, integer: bool = False) -> Number:
    """Return `value` if it is a finite number in [low, high].

    Raises:
        ValueError: It is not; the text names the input, its value and the range.
    """
    kind = "a whole number" if integer else "a number"
    wrong_type = isinstance(value, bool) or not isinstance(value, int if integer else (int, float))
    if wrong_type or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, but must be {kind} between {low} and {high}")
    return value


def check_choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`.

    Raises:
        ValueError: It is not; the text names the input, its value and the choices.
    """
    choices = tuple(allowed)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of: {', '.join(map(str, choices))}")
    return value


@dataclass(frozen=True)
class AlignmentSettings:
    """The loss term at the border of the hole.

    Attributes:
        lambda_al: Its weight, 0 switches it off. It belongs to the loss: for "edge-match", where both terms are means,
            0.01 to 1 is the useful range; for "alignment" the paper uses 400.
        border_width: Of edge-match: how far from the mask's edge, in pixels of the loss's own resolution, it looks on
            each side. The alignment loss looks at the mask's edge itself.
        softness: Image gradients much smaller than this (in units of the data, range 2) count as flat: eq. 7 divides by
            sqrt(|g|^2 + softness^2). 0 is the equation to the letter. The mask's gradients are never softened.
        space: What the term looks at where the model denoises latents. "off": nothing, as in the paper; "auto": that
            too, so that a result does not depend on which decoders are installed; "latent": the latent itself; "rgb":
            its linear projection to colors; "tiny": a tiny decoder's image, the only one that gained where measured
            (benchmarks/results/alignment_latent.md); "vae": the full decoder's. With models of pixels the term looks at
            those, but for "off".
        loss: "edge-match": ours, does the collage keep the edges that the model drew across the border; "alignment":
            the paper's eqs. 6-7. With the latter the masked MSE is scaled as in eq. 5 too: the paper's weight belongs
            to both.
        fraction: Share of the run's steps, from the first, during which the term counts. Guidance may end earlier; a
            reused step goes on with the gradient it reuses.
    """

    lambda_al: float = DEFAULT_LAMBDA_AL
    border_width: int = 1
    softness: float = DEFAULT_SOFTNESS
    space: str = "auto"
    loss: str = EDGE_MATCH
    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_number("lambda_al", self.lambda_al, 0.0, 1e4)
        check_number("border_width", self.border_width, 1, 64, integer=True)
        check_number("softness", self.softness, 0.0, 2.0)
        check_choice("space", self.space, ALIGNMENT_SPACES)
        check_choice("loss", self.loss, ALIGNMENT_LOSSES)
        check_number("fraction", self.fraction, 0.0, 1.0)

    @classmethod
    def paper(cls) -> AlignmentSettings:
        """Eqs. 6 and 7 to the letter, with weight 400, in the first 45 of 100 steps."""
        return cls(lambda_al=PAPER_LAMBDA_AL, softness=0.0, loss=ALIGNMENT_LOSS, fraction=PAPER_ALIGNMENT_FRACTION)


@dataclass(frozen=True)
class GuideSchedule:
    """Which steps of a run are guided.

    Attributes:
        mode: "fraction": the first `fraction` of the run's steps; "steps": the first `steps` steps; "adaptive": until
            the normalized loss has stopped falling (see `adaptive_stop`).
        fraction: 0..1 of the run. The paper guides every step, GradPaint-Fast the first half.
        steps: Number of steps from the start that are candidates for guidance.
        every: Among those, every k-th is guided (1 = each); the first step of the run is always one of them.
        between: What happens at the others of those steps. "plain": nothing; "keep": eq. 9 with the last direction
            g_hat, at the cost of a plain step.
        minimum, maximum: Of mode "adaptive": guidance lasts at least and at most this share of the run.
        patience: Of mode "adaptive": it ends when the normalized loss has not fallen for this share of the run,
        tolerance: a drop by less than this share of the loss not counting as one.
    """

    mode: str = "fraction"
    fraction: float = DEFAULT_FRACTION
    steps: int = DEFAULT_STEPS
    every: int = 1
    between: str = "plain"
    minimum: float = DEFAULT_MINIMUM
    maximum: float = DEFAULT_MAXIMUM
    patience: float = DEFAULT_PATIENCE
    tolerance: float = DEFAULT_TOLERANCE

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, SCHEDULE_MODES)
        check_number("fraction", self.fraction, 0.0, 1.0)
        check_number("steps", self.steps, 0, 10_000, integer=True)
        check_number("every", self.every, 1, 1000, integer=True)
        check_choice("between", self.between, BETWEEN)
        check_number("minimum", self.minimum, 0.0, 1.0)
        check_number("maximum", self.maximum, 0.0, 1.0)
        if self.minimum > self.maximum:
            raise ValueError(f"minimum is {self.minimum!r}, but must be at most maximum, which is {self.maximum!r}")
        check_number("patience", self.patience, 0.0, 1.0)
        check_number("tolerance", self.tolerance, 0.0, 0.99)

    @classmethod
    def fast(cls) -> GuideSchedule:
        """The paper's GradPaint-Fast: guidance in the first half of the run."""
        return cls(mode="fraction", fraction=PAPER_FAST_FRACTION)

    @classmethod
    def thorough(cls) -> GuideSchedule:
        """Three quarters of the run."""
        return cls(mode="fraction", fraction=0.75)

    @classmethod
    def full(cls) -> GuideSchedule:
        """Every step of the run is guided, as in the paper."""
        return cls(mode="fraction", fraction=1.0)

    @classmethod
    def adaptive(cls) -> GuideSchedule:
        """Until the normalized loss has stopped falling."""
        return cls(mode="adaptive")


@dataclass(frozen=True)
class GuidanceSettings:
    """All that GradPaint adds to a sampler.

    Attributes:
        strength: How hard guidance pushes over the whole run, whatever the number of steps, the scheduler or the kind
            of model: 1 was best or close to it wherever measured (docs/quality.md), 0 = no displacement. See
            `step.step_size`.
        alpha: Instead of strength, the paper's step size of eq. 9, the same at every step, in units of the state's
            standard deviation. None = by strength.
        normalization: "rms": g_hat has RMS 1 over one sample; "l2": eq. 9 to the letter, L2 norm 1, which at the
            paper's alpha is too small to have a visible effect; it needs an alpha.
        alignment: The loss term at the border.
        schedule: Which steps are guided.
        gradient: What the loss is differentiated through. "model": all of it, as in eq. 9. "cond": with classifier-free
            guidance only the conditional branch, the other one's answer being taken as a constant. "x0": nothing; the
            known region's error is spread by a fixed filter (`gradient.x0_gradient`), the loss at the border is left
            out, and no backward pass is made.
        lambda_mse: Weight of the masked MSE, 1 in the paper; 0 leaves the loss at the border alone.
    """

    strength: float = DEFAULT_STRENGTH
    alpha: float | None = None
    normalization: str = "rms"
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    schedule: GuideSchedule = field(default_factory=GuideSchedule)
    gradient: str = "model"
    lambda_mse: float = 1.0

    def __post_init__(self) -> None:
        check_number("strength", self.strength, 0.0, 100.0)
        if self.alpha is not None:
            check_number("alpha", self.alpha, 0.0, 1e3)
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        if self.normalization == "l2" and self.alpha is None:
            raise ValueError(
                "normalization is 'l2', which is eq. 9 to the letter and needs an alpha; strength goes "
                f"with 'rms'. The paper's alpha is {PAPER_ALPHA:g}"
            )
        check_choice("gradient", self.gradient, GRADIENTS)
        check_number("lambda_mse", self.lambda_mse, 0.0, 1e4)
        if self.gradient == "x0" and self.lambda_mse == 0:
            raise ValueError(
                "lambda_mse is 0, but must be above 0 with gradient 'x0', which goes by the masked MSE alone"
            )
        if not isinstance(self.alignment, AlignmentSettings):
            raise ValueError(f"alignment is {self.alignment!r}, but must be an AlignmentSettings")
        if not isinstance(self.schedule, GuideSchedule):
            raise ValueError(f"schedule is {self.schedule!r}, but must be a GuideSchedule")

    @property
    def active(self) -> bool:
        """Whether guided steps are displaced at all."""
        return (self.strength if self.alpha is None else self.alpha) > 0

    @classmethod
    def paper(cls, normalization: str = "rms") -> GuidanceSettings:
        """The paper's GradPaint: eqs. 5-8, masked MSE at every step, alignment loss in the first 45%, alpha 0.005.

        Args:
            normalization: "l2" is eq. 9 to the letter, which moves nothing visible: at most 0.5 in L2 over 100 steps
                of 196,608 values. "rms" is the reading that has an effect.
        """
        return cls(
            alpha=PAPER_ALPHA,
            normalization=normalization,
            alignment=AlignmentSettings.paper(),
            schedule=GuideSchedule.full(),
        )


PRESETS: dict[str, GuidanceSettings] = {
    "default": GuidanceSettings(),
    "paper": GuidanceSettings.paper(),
    "paper-l2": GuidanceSettings.paper("l2"),
    "GradPaint-Fast": replace(GuidanceSettings.paper(), schedule=GuideSchedule.fast()),
    "latent-paper": replace(GuidanceSettings.paper(), alignment=AlignmentSettings(lambda_al=0.0, loss=ALIGNMENT_LOSS)),
}
"""Whole sets of settings by name. "default" is this project's; the others are the paper's: GradPaint, the same with
eq. 9 to the letter, GradPaint-Fast (all off after half of the steps), and for latent models (masked MSE alone)."""


def preset(name: str) -> GuidanceSettings:
    """PRESETS[name]; ValueError naming the choices."""
    return PRESETS[check_choice("preset", name, PRESETS)]


@dataclass(frozen=True)
class MemorySettings:
    """How guided steps use memory: guidance needs the model's activations for its backward pass.

    Attributes:
        mode: `auto` recomputes as many of the model's blocks in the backward pass as the free memory asks for;
            `fastest` recomputes none; `low memory` all; `lowest memory` all, and their inputs wait in host memory. None
            of them changes the result. On an out-of-memory error every mode but `fastest` repeats the step with less.
        allow_without_gradient: Where nothing fits, go on as with gradient "x0", without the model's, instead of an
            error.
    """

    mode: str = AUTO
    allow_without_gradient: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MEMORY_MODES:
            raise ValueError(f"memory mode is {self.mode!r}; allowed are {', '.join(map(repr, MEMORY_MODES))}")
