"""The inputs that the sampling nodes and Apply GradPaint share, and the settings object they make."""

from __future__ import annotations

from comfy_api.latest import io

from ..gradpaint.method.settings import (
    GRADIENTS,
    NORMALIZATIONS,
    PAPER_ALPHA,
    AlignmentSettings,
    GuidanceSettings,
    GuideSchedule,
)
from .host.sampling.ksampler import sampler_names, scheduler_names
from .sockets import Alignment, Memory, Schedule

_DEFAULT = GuidanceSettings()
RECORDS = ("losses", "pictures")


def sampler_inputs(steps: str = "denoising steps") -> list:
    """steps, cfg, sampler_name, scheduler, positive, negative, as KSampler has them. steps: for its tooltip."""
    return [
        io.Int.Input(
            "steps",
            default=20,
            min=1,
            max=10_000,
            tooltip=f"Number of {steps}. The paper uses 100; 20 to 50 are enough for most models.",
        ),
        io.Float.Input(
            "cfg",
            default=8.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="Classifier-free guidance scale, as in KSampler. 1 for unconditional models.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=sampler_names(),
            tooltip="The sampling algorithm, as in KSampler. The paper samples with DDPM (ddpm).",
        ),
        io.Combo.Input(
            "scheduler", options=scheduler_names(), tooltip="How the noise levels are spaced, as in KSampler."
        ),
        io.Conditioning.Input("positive", tooltip="What the image should show."),
        io.Conditioning.Input("negative", tooltip="What it should not show; unused at cfg 1."),
    ]


def guidance_inputs() -> list:
    """strength, alignment, schedule, normalization, memory, gradient, alpha."""
    return [
        io.Float.Input(
            "strength",
            default=_DEFAULT.strength,
            min=0.0,
            max=100.0,
            step=0.05,
            tooltip="How hard guidance pushes over the whole run: 1 is the measured optimum, whatever the number of "
            "steps, sampler, scheduler or kind of model. At 4 to 6 steps with a multistep sampler (dpmpp_2m) "
            "take 0.5. 0 only keeps the known part in place.",
        ),
        Alignment.Input(
            "alignment", optional=True, tooltip="From GradPaint Alignment Loss. Left open: that node's defaults."
        ),
        Schedule.Input(
            "schedule",
            optional=True,
            tooltip="From GradPaint Early-Stop Scheduler. Left open: the first 45% of the steps are guided, as "
            "in the paper.",
        ),
        io.Combo.Input(
            "normalization",
            options=list(NORMALIZATIONS),
            default=_DEFAULT.normalization,
            advanced=True,
            tooltip="rms: each image's gradient is scaled to RMS 1, so a step means the same at every size. l2: eq. 9 "
            "read literally, norm 1 over the whole image; it needs an alpha, and a far larger one.",
        ),
        # Last and optional: workflows and prompts saved before these inputs were there stay valid.
        Memory.Input(
            "memory",
            optional=True,
            tooltip="From GradPaint Memory. Left open: as much is recomputed in guided steps as the free memory asks "
            "for.",
        ),
        io.Combo.Input(
            "gradient",
            options=list(GRADIENTS),
            default=_DEFAULT.gradient,
            optional=True,
            advanced=True,
            tooltip="What the loss is differentiated through. model: all of it, as in the paper. cond: at cfg above 1 "
            "only the positive conditioning, about three quarters of a guided step's time, no worse where "
            "measured. x0: not the model; costs what KSampler does and gives a third to half of the gain.",
        ),
        io.Float.Input(
            "alpha",
            default=0.0,
            min=0.0,
            max=1000.0,
            step=0.005,
            round=0.0001,
            optional=True,
            advanced=True,
            tooltip="The paper's step size (eq. 9), the same at every guided step, in units of the noisy image's "
            "spread; useful: 0.02 to 0.15 at 20 to 50 steps. 0: by strength. The paper writes "
            f"{PAPER_ALPHA:g}, which in these units has hardly any effect.",
        ),
    ]


def keep_record_input() -> io.Combo.Input:
    """keep_record."""
    return io.Combo.Input(
        "keep_record",
        options=list(RECORDS),
        default=RECORDS[0],
        optional=True,
        advanced=True,
        tooltip="What the record output holds. losses: the numbers, at no cost. pictures: also the image as the model "
        "sees it at 8 steps and the gradients of 4 guided steps, each of which then costs a second evaluation; "
        "for GradPaint Pictures.",
    )


def guidance_settings(
    strength: float,
    normalization: str,
    alignment: AlignmentSettings | None,
    schedule: GuideSchedule | None,
    gradient: str,
    alpha: float,
) -> GuidanceSettings:
    """The settings object; sockets left open take the library's defaults, alpha 0 means by strength."""
    return GuidanceSettings(
        strength=strength,
        alpha=alpha or None,
        normalization=normalization,
        alignment=alignment or _DEFAULT.alignment,
        schedule=schedule or _DEFAULT.schedule,
        gradient=gradient,
    )
