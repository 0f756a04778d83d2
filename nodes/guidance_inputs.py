"""The inputs shared by the sampling nodes and Apply GradPaint, and the settings object made from them."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from ..gradpaint.method.settings import (
    GRADIENTS,
    NORMALIZATIONS,
    PAPER_ALPHA,
    PAPER_LAMBDA_AL,
    PAPER_TOTAL_STEPS,
    PRESETS,
    AlignmentSettings,
    GuidanceSettings,
    GuideSchedule,
    check_choice,
)
from .host.sampling.ksampler import sampler_names, scheduler_names
from .sockets import Alignment, Memory, Schedule

_DEFAULT = GuidanceSettings()
RECORDS = ("losses", "pictures")
CUSTOM = "custom"
# The library's "default" is what a custom node without any change does.
PRESET_CHOICES = (CUSTOM, *(name for name in PRESETS if name != "default"))


def sampler_inputs(steps: str = "denoising steps") -> list[io.Input]:
    """KSampler's steps, cfg, sampler_name, scheduler, positive and negative.

    Args:
        steps: what the tooltip of `steps` calls the steps.
    """
    return [
        io.Int.Input(
            "steps",
            default=20,
            min=1,
            max=10_000,
            tooltip=f"Number of {steps}. The paper uses {PAPER_TOTAL_STEPS}; 20 to 50 are enough for most models.",
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
        io.Conditioning.Input("negative", tooltip="What the image should not show. Not used at cfg 1."),
    ]


def guidance_inputs() -> list[io.Input]:
    """strength, alignment, schedule, normalization, memory, gradient and alpha."""
    return [
        io.Float.Input(
            "strength",
            default=_DEFAULT.strength,
            min=0.0,
            max=100.0,
            step=0.05,
            tooltip="How strongly guidance acts over the whole run. 1 was best or close to it wherever measured (small "
            "models, 8 to 100 steps, several samplers and schedulers). At 4 to 6 steps with a multistep sampler "
            "(dpmpp_2m), use 0.5. 0 only keeps the known region in place.",
        ),
        Alignment.Input(
            "alignment", optional=True, tooltip="From GradPaint Alignment Loss. Not connected: that node's defaults."
        ),
        Schedule.Input(
            "schedule",
            optional=True,
            tooltip="From GradPaint Early-Stop Scheduler. Not connected: the first 45% of the steps are guided.",
        ),
        io.Combo.Input(
            "normalization",
            options=list(NORMALIZATIONS),
            default=_DEFAULT.normalization,
            advanced=True,
            tooltip="rms: scales each image's gradient to RMS 1, so that a step means the same at every image size. "
            "l2: eq. 9 to the letter, norm 1 over the whole image; needs alpha, and a far larger one.",
        ),
        *_later_inputs(),
    ]


def _later_inputs() -> list[io.Input]:
    """Last and optional: workflows and prompts saved before these inputs existed stay valid."""
    return [
        Memory.Input(
            "memory",
            optional=True,
            tooltip="From GradPaint Memory. Not connected: guided steps recompute as much as the free memory requires.",
        ),
        io.Combo.Input(
            "gradient",
            options=list(GRADIENTS),
            default=_DEFAULT.gradient,
            optional=True,
            advanced=True,
            tooltip="What the loss is differentiated through. model: the whole model, as in the paper. cond: above cfg "
            "1, only the positive conditioning; a guided step takes about three quarters of the time, and results "
            "were nearly as good where measured. x0: not through the model; about as fast as KSampler, with a third "
            "to half of the gain.",
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
            tooltip="The step size of eq. 9, the same at every guided step, in units of the noisy image's spread. "
            "Useful: 0.02 to 0.15 at 20 to 50 steps. 0: set by strength. The paper's value is "
            f"{PAPER_ALPHA:g}, which has no visible effect with l2.",
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
        tooltip="What the record output holds. losses: the numbers, at no extra cost. pictures: also the model's "
        "estimate at 8 steps and the gradients of 4 guided steps, which cost a second evaluation each; for GradPaint "
        "Pictures.",
    )


def preset_input() -> io.Combo.Input:
    """preset; after every other input, for it came last."""
    return io.Combo.Input(
        "preset",
        options=list(PRESET_CHOICES),
        default=CUSTOM,
        optional=True,
        tooltip="custom: this node's own settings. The others follow the paper: they set the step size, normalization, "
        "loss and schedule together (leave alignment and schedule unconnected); gradient and memory stay the node's "
        "own. paper: the masked MSE guides every step, the alignment loss the first 45%, with lambda_al "
        f"{PAPER_LAMBDA_AL:g}, alpha {PAPER_ALPHA:g} and rms. paper-l2: the same with eq. 9 to the letter, which "
        f"moves nothing visible (at most {PAPER_ALPHA:g} in L2 per step). GradPaint-Fast: like paper, "
        "but all guidance ends after half of the steps. latent-paper: the masked MSE alone guides every step, as in "
        "the paper with latent models.",
    )


def guidance_settings(
    strength: float,
    normalization: str,
    alignment: AlignmentSettings | None,
    schedule: GuideSchedule | None,
    gradient: str,
    alpha: float,
    preset: str = CUSTOM,
) -> GuidanceSettings:
    """Return the settings that a node's inputs stand for.

    Args:
        strength, normalization, gradient: as in GuidanceSettings.
        alignment, schedule: None, an unconnected socket, takes the library's default.
        alpha: 0 means that strength sets it.
        preset: one of PRESET_CHOICES. All but "custom" replace every other setting except `gradient`.

    Raises:
        ValueError: A value is out of range, or a preset is chosen although `alignment` or `schedule` is connected.
    """
    if check_choice("preset", preset, PRESET_CHOICES) != CUSTOM:
        connected = [name for name, value in (("alignment", alignment), ("schedule", schedule)) if value is not None]
        if connected:
            names = " and ".join(connected)
            raise ValueError(
                f"preset is {preset!r}, which sets the alignment loss and the schedule itself, but {names} "
                f"{'is' if len(connected) == 1 else 'are'} connected. Disconnect {names}, or set preset to {CUSTOM!r}"
            )
        return dataclasses.replace(PRESETS[preset], gradient=gradient)
    return GuidanceSettings(
        strength=strength,
        alpha=alpha or None,
        normalization=normalization,
        alignment=alignment or _DEFAULT.alignment,
        schedule=schedule or _DEFAULT.schedule,
        gradient=gradient,
    )
