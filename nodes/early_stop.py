"""GradPaint Early-Stop Scheduler: which steps of a run are guided."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from ..gradpaint.method.settings import BETWEEN, PAPER_GUIDED_STEPS, PAPER_TOTAL_STEPS, GuideSchedule
from .sockets import CATEGORY, Schedule

_DEFAULT = GuideSchedule()
_PRESETS = {
    "paper (first 45%)": GuideSchedule.paper(),
    "fast (first 50%)": GuideSchedule.fast(),
    "thorough (first 75%)": GuideSchedule.thorough(),
    "full (every step)": GuideSchedule.full(),
}
MODES = [*_PRESETS, "fraction", "steps", "adaptive"]
_ADAPTIVE = (  # name, highest value, tooltip
    ("minimum", 1.0, "guide at least this share of the run."),
    ("maximum", 1.0, "guide at most this share of the run."),
    ("patience", 1.0, "stop when the normalised loss has not fallen for this share of the run (two steps at least)."),
    ("tolerance", 0.99, "a fall by less than this share of the loss does not count as one."),
)


class GradPaintEarlyStop(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GradPaintEarlyStop",
            display_name="GradPaint Early-Stop Scheduler",
            category=CATEGORY,
            description="Which steps are guided. A guided step costs a backward pass; late steps hardly change what "
            "the image shows, so guidance can stop early.",
            search_aliases=["gradpaint fast", "guidance schedule", "early stopping", "guided steps"],
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=MODES,
                    default=MODES[0],
                    tooltip=f"The paper's experiments guide {PAPER_GUIDED_STEPS} of {PAPER_TOTAL_STEPS} steps, "
                    "GradPaint-Fast the first 50% of the run; thorough gives better images for more time. "
                    "`fraction` and `steps` use the numbers below, the presets do not. `adaptive` stops each "
                    "image when its loss no longer falls faster than the noise; the log says when.",
                ),
                io.Float.Input(
                    "fraction",
                    default=_DEFAULT.fraction,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="In mode `fraction`: the share of the run that is guided, from its start. Paper: 0.45; "
                    "GradPaint-Fast: 0.5.",
                ),
                io.Int.Input(
                    "steps",
                    default=_DEFAULT.steps,
                    min=0,
                    max=10_000,
                    tooltip="In mode `steps`: guide this many steps from the start, however long the run is. Paper: "
                    f"{PAPER_GUIDED_STEPS} of {PAPER_TOTAL_STEPS}.",
                ),
                io.Int.Input(
                    "every",
                    default=_DEFAULT.every,
                    min=1,
                    max=1000,
                    advanced=True,
                    tooltip="Guide only every k-th of those steps, the first one included. The paper guides each: 1.",
                ),
                # Last and optional: workflows and prompts saved before this input was there stay valid.
                io.Combo.Input(
                    "between",
                    options=list(BETWEEN),
                    default=_DEFAULT.between,
                    optional=True,
                    advanced=True,
                    tooltip="With `every` above 1, the steps between two guided ones: plain, or nudged in the last "
                    "direction (keep) at the cost of a plain step. Measured on a 64 x 64 model: every 2 with "
                    "keep costs little or nothing; every 3 is worse.",
                ),
                *(
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
                ),
            ],
            outputs=[Schedule.Output("schedule", tooltip="For the GradPaint KSampler or Apply GradPaint.")],
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
        base = _PRESETS.get(mode)
        if mode == "adaptive":
            base = GuideSchedule(mode=mode, minimum=minimum, maximum=maximum, patience=patience, tolerance=tolerance)
        base = base or GuideSchedule(mode=mode, fraction=fraction, steps=steps)
        return io.NodeOutput(dataclasses.replace(base, every=every, between=between))


NODES = [GradPaintEarlyStop]
