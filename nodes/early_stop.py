"""GradPaint Early-Stop Scheduler: which steps of a run are guided."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from ..gradpaint.method.settings import BETWEEN, GuideSchedule
from .migrations import RENAMED_CHOICES
from .sockets import CATEGORY, Schedule

_DEFAULT = GuideSchedule()
_PRESETS = {
    "default (first 45%)": GuideSchedule(),
    "fast (first 50%)": GuideSchedule.fast(),
    "thorough (first 75%)": GuideSchedule.thorough(),
    "full (every step)": GuideSchedule.full(),
}
MODES = [*_PRESETS, "fraction", "steps", "adaptive"]
_ADAPTIVE = (  # name, highest value, tooltip
    ("minimum", 1.0, "guide at least this share of the run."),
    ("maximum", 1.0, "guide at most this share of the run."),
    ("patience", 1.0, "stop when the normalized loss has not fallen for this share of the run (at least two steps)."),
    ("tolerance", 0.99, "a drop smaller than this share of the loss does not count as one."),
)


class GradPaintEarlyStop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GradPaintEarlyStop",
            display_name="GradPaint Early-Stop Scheduler",
            category=CATEGORY,
            description="Chooses which steps are guided. A guided step costs a backward pass, and late steps mostly "
            "refine texture, so guidance can stop early.",
            search_aliases=["gradpaint fast", "guidance schedule", "early stopping", "guided steps"],
            inputs=[*_mode_inputs(), *_thinning_inputs(), *_adaptive_inputs()],
            outputs=[
                Schedule.Output(
                    "schedule", tooltip="For the GradPaint KSamplers, Apply GradPaint and GradPaint Sampler."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        mode: str,
        fraction: float,
        steps: int,
        every: int,
        between: str = "plain",
        minimum: float = _DEFAULT.minimum,
        maximum: float = _DEFAULT.maximum,
        patience: float = _DEFAULT.patience,
        tolerance: float = _DEFAULT.tolerance,
    ) -> io.NodeOutput:
        mode = RENAMED_CHOICES["GradPaintEarlyStop"]["mode"].get(mode, mode)  # from a link, which no prompt shows
        base = _PRESETS.get(mode)
        if mode == "adaptive":
            base = GuideSchedule(mode=mode, minimum=minimum, maximum=maximum, patience=patience, tolerance=tolerance)
        base = base or GuideSchedule(mode=mode, fraction=fraction, steps=steps)
        return io.NodeOutput(dataclasses.replace(base, every=every, between=between))


def _mode_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "mode",
            options=MODES,
            default=MODES[0],
            tooltip="default (first 45%) ends all guidance after 45% of the steps. fast (first 50%) stops where the "
            "paper's GradPaint-Fast does. thorough takes more time for better images. full guides every step, as the "
            "paper does. `fraction` and `steps` use the numbers below; the modes with a name do not. `adaptive` stops "
            "each image once its loss no longer falls faster than the noise; the log says when.",
        ),
        io.Float.Input(
            "fraction",
            default=_DEFAULT.fraction,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="In mode `fraction`: the share of the run that is guided, from its start. The paper's "
            "GradPaint-Fast: 0.5.",
        ),
        io.Int.Input(
            "steps",
            default=_DEFAULT.steps,
            min=0,
            max=10_000,
            tooltip="In mode `steps`: guide this many steps from the start, however long the run is.",
        ),
    ]


def _thinning_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "every",
            default=_DEFAULT.every,
            min=1,
            max=1000,
            advanced=True,
            tooltip="Guide only every k-th of those steps, starting with the first. The paper guides each one: 1.",
        ),
        # Last and optional: workflows and prompts saved before this input existed stay valid.
        io.Combo.Input(
            "between",
            options=list(BETWEEN),
            default=_DEFAULT.between,
            optional=True,
            advanced=True,
            tooltip="With `every` above 1: what happens at the steps in between. plain: nothing. keep: they reuse the "
            "last gradient, at the cost of a plain step. On a 64 x 64 model, every 2 with keep cost little or "
            "nothing; every 3 was worse.",
        ),
    ]


def _adaptive_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            name,
            default=getattr(_DEFAULT, name),
            min=0.0,
            max=high,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="In mode `adaptive`: " + text,
        )
        for name, high, text in _ADAPTIVE
    ]


NODES = [GradPaintEarlyStop]
