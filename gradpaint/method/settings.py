"""Settings of the method as frozen dataclasses. Every range is checked when the object is made.

The names are the paper's (Grechka, Couairon, Cord: "Gradient-Guided Inpainting with Diffusion Models"): `alpha` is the
step size of eq. 9, `lambda_al` the weight of the alignment loss in eq. 8. `strength` is ours: it sets alpha for every
step so that the number of steps and their spacing do not matter (see `gradpaint.method.step`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NORMALIZATIONS = ("rms", "l2")
SCHEDULE_MODES = ("fraction", "steps", "adaptive")
GRADIENTS = ("model", "cond", "x0")
BETWEEN = ("plain", "keep")
ALIGNMENT_LOSSES = ("edge match",)
ALIGNMENT_SPACES = ("auto", "off", "latent", "rgb", "tiny", "vae")

AUTO, FASTEST, LOW_MEMORY, LOWEST_MEMORY = "auto", "fastest", "low memory", "lowest memory"
MEMORY_MODES = (AUTO, FASTEST, LOW_MEMORY, LOWEST_MEMORY)

# The paper's own numbers, kept together so that nodes, CLI and docs quote one place.
PAPER_ALPHA = 0.005
PAPER_LAMBDA_AL = 400.0
PAPER_GUIDED_STEPS = 45
PAPER_TOTAL_STEPS = 100

DEFAULT_STRENGTH = 1.0
DEFAULT_LAMBDA_AL = 0.1
DEFAULT_SOFTNESS = 0.5
DEFAULT_FRACTION = PAPER_GUIDED_STEPS / PAPER_TOTAL_STEPS  # the paper's early stop
# Of the adaptive early stop; chosen by measurement, benchmarks/results/early_stop.md.
DEFAULT_MINIMUM = 0.3
DEFAULT_MAXIMUM = 1.0
DEFAULT_PATIENCE = 0.15
DEFAULT_TOLERANCE = 0.05


def check_number(name: str, value, low: float, high: float, *, integer: bool = False):
    """Return `value` if it is a finite number in [low, high]; otherwise ValueError naming input, value and range."""
    kind = "a whole number" if integer else "a number"
    wrong_type = isinstance(value, bool) or not isinstance(value, int if integer else (int, float))
    if wrong_type or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, but must be {kind} between {low} and {high}")
    return value


def check_choice(name: str, value, allowed) -> str:
    """Return `value` if it is one of `allowed`; otherwise ValueError naming input, value and choices."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but must be one of: {', '.join(map(str, allowed))}")
    return value


@dataclass(frozen=True)
class AlignmentSettings:
    """The alignment loss (eqs. 6-7) and its weight in the total loss (eq. 8).

    lambda_al     weight, 0 switches the term off. The paper uses 400 with its own normalisation of the losses; with
                  both losses taken as means, as here, values of 0.01 to 1 are the useful range.
    border_width  how far from the mask's edge, in pixels of the loss's own resolution, the term looks on each side.
    softness      image gradients much smaller than this (in units of the data, range 2) count as flat: eq. 7 divides
                  by sqrt(|g|^2 + softness^2). 0 is the literal equation.
    space         what the term looks at where the model denoises latents. "off": nothing, as in the paper; "auto": that
                  too, so that a result does not depend on which decoders are installed; "latent": the latent itself;
                  "rgb": its linear projection to colours; "tiny": a tiny decoder's image, the only one that gained
                  where measured (benchmarks/results/alignment_latent.md); "vae": the full decoder's. With models of
                  pixels the term looks at those, but for "off".
    """

    lambda_al: float = DEFAULT_LAMBDA_AL
    border_width: int = 1
    softness: float = DEFAULT_SOFTNESS
    space: str = "auto"
    loss: str = ALIGNMENT_LOSSES[0]
    fraction: float = 1.0

    def __post_init__(self):
        check_number("lambda_al", self.lambda_al, 0.0, 1e4)
        check_number("border_width", self.border_width, 1, 64, integer=True)
        check_number("softness", self.softness, 0.0, 2.0)
        check_choice("space", self.space, ALIGNMENT_SPACES)
        check_choice("loss", self.loss, ALIGNMENT_LOSSES)
        check_number("fraction", self.fraction, 0.0, 1.0)

    @classmethod
    def paper(cls) -> AlignmentSettings:
        """The paper's weight for image-space models, lambda_al = 400, with the literal eq. 7."""
        return cls(lambda_al=PAPER_LAMBDA_AL, softness=0.0)


@dataclass(frozen=True)
class GuideSchedule:
    """Which steps of a run are guided (the paper's early stop).

    mode      "fraction": the first `fraction` of the run's steps; "steps": the first `steps` steps; "adaptive": until
              the normalised loss has stopped falling (see `early_stop`).
    fraction  0..1 of the run. The paper stops at 0.45 (default), GradPaint-Fast at 0.5.
    steps     number of steps from the start that are candidates for guidance.
    every     among those, guide every k-th (1 = each); the first step of the run is always one of them.
    between   what happens at the others of those steps. "plain": nothing; "keep": eq. 9 with the last direction g_hat,
              at the cost of a plain step.

    Of mode "adaptive", all in shares of the run, so that they hold for any number of steps:
    minimum, maximum  guidance lasts at least and at most this long.
    patience          it ends when the normalised loss has not fallen for this long,
    tolerance         a fall by less than this share of the loss not counting as one.
    """

    mode: str = "fraction"
    fraction: float = DEFAULT_FRACTION
    steps: int = PAPER_GUIDED_STEPS
    every: int = 1
    between: str = "plain"
    minimum: float = DEFAULT_MINIMUM
    maximum: float = DEFAULT_MAXIMUM
    patience: float = DEFAULT_PATIENCE
    tolerance: float = DEFAULT_TOLERANCE

    def __post_init__(self):
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
        """GradPaint-Fast: guidance in the first half of the run."""
        return cls(mode="fraction", fraction=0.5)

    @classmethod
    def thorough(cls) -> GuideSchedule:
        """Three quarters of the run: better images than by less, measured, at twice a plain run's time."""
        return cls(mode="fraction", fraction=0.75)

    @classmethod
    def full(cls) -> GuideSchedule:
        """Every step of the run is guided."""
        return cls(mode="fraction", fraction=1.0)

    @classmethod
    def adaptive(cls) -> GuideSchedule:
        """Until the normalised loss has stopped falling."""
        return cls(mode="adaptive")

    @classmethod
    def paper(cls) -> GuideSchedule:
        """The paper's early stop, 45 of 100 steps, as the same share of a run of any length."""
        return cls(mode="fraction", fraction=PAPER_GUIDED_STEPS / PAPER_TOTAL_STEPS)


@dataclass(frozen=True)
class GuidanceSettings:
    """All that GradPaint adds to a sampler.

    strength       how hard guidance pushes over the whole run, whatever the number of steps, the scheduler or the kind
                   of model: 1 is the measured optimum (docs/quality.md), 0 = no nudge. See `step.step_size`.
    alpha          instead of strength, the paper's step size of eq. 9, the same at every step, in units of the state's
                   standard deviation. None = by strength.
    normalization  "rms": g_hat has RMS 1 over one sample (default); "l2": the literal eq. 9, L2 norm 1, which at the
                   paper's alpha is too small to have an effect on pixel-space models; it needs an alpha.
    gradient       what the loss is differentiated through. "model": all of it, as in eq. 9. "cond": with
                   classifier-free guidance only the conditional branch, the other one's answer being taken as a
                   constant. "x0": nothing; the known part's error is spread by a fixed filter (`gradient.x0_gradient`),
                   the alignment loss is left out, and no backward pass is made.
    """

    strength: float = DEFAULT_STRENGTH
    alpha: float | None = None
    normalization: str = "rms"
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    schedule: GuideSchedule = field(default_factory=GuideSchedule)
    gradient: str = "model"
    lambda_mse: float = 1.0

    def __post_init__(self):
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
        if not isinstance(self.alignment, AlignmentSettings):
            raise ValueError(f"alignment is {self.alignment!r}, but must be an AlignmentSettings")
        if not isinstance(self.schedule, GuideSchedule):
            raise ValueError(f"schedule is {self.schedule!r}, but must be a GuideSchedule")

    @property
    def active(self) -> bool:
        """Whether guided steps are nudged at all."""
        return (self.strength if self.alpha is None else self.alpha) > 0


@dataclass(frozen=True)
class MemorySettings:
    """How guided steps use memory: guidance needs the model's activations for its backward pass.

    mode: `auto` recomputes as many of the model's blocks in the backward pass as the free memory asks for;
    `fastest` recomputes none; `low memory` all; `lowest memory` all, and their inputs wait in host memory. None of them
    changes the result. On an out-of-memory error every mode but `fastest` goes on with less.
    allow_without_gradient: where no way fits, go on as with gradient "x0", without the model's, instead of an error.
    """

    mode: str = AUTO
    allow_without_gradient: bool = False

    def __post_init__(self):
        if self.mode not in MEMORY_MODES:
            raise ValueError(f"memory mode is {self.mode!r}; allowed are {', '.join(map(repr, MEMORY_MODES))}")
