"""Methods as one writes them on a command line: "gradpaint", "repaint:steps=250,resamplings=10"."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field

from ..method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from ..sampling.methods import get_method

PARTS = ("", "alignment", "schedule")  # of the guidance settings; "": themselves


@dataclass(frozen=True)
class MethodSpec:
    """A method of `gradpaint.sampling.methods` with what it runs with.

    label     its name in tables, files and records.
    name      in METHODS.
    steps     instead of the run's, or None.
    guidance  GuidanceSettings fields, those of alignment and schedule included, to replace; "stop" is the fraction or
              "adaptive".
    options   of the method itself.
    """

    label: str
    name: str
    steps: int | None = None
    guidance: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        """All but the label, as text: results of one label are taken up again only if they were made like this."""
        return json.dumps([self.name, self.steps, self.guidance, self.options], sort_keys=True)

    @property
    def slug(self) -> str:
        """The label as a file name."""
        return slug(self.label)

    def settings(self, base: GuidanceSettings) -> GuidanceSettings:
        """`base` with this method's own guidance."""
        parts = {part: {} for part in PARTS}
        for name, value in self.guidance.items():
            if name == "stop":
                adaptive = value == "adaptive"
                parts["schedule"] |= {"mode": "adaptive"} if adaptive else {"mode": "fraction", "fraction": value}
            else:
                parts[_home(name)][name] = value
        if "strength" in parts[""] and "alpha" not in parts[""]:
            parts[""]["alpha"] = None  # else the base's would go before it
        return dataclasses.replace(
            base,
            **parts[""],
            alignment=dataclasses.replace(base.alignment, **parts["alignment"]),
            schedule=dataclasses.replace(base.schedule, **parts["schedule"]),
        )


def slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", label).strip("_")


def _names(kind) -> set[str]:
    return {f.name for f in dataclasses.fields(kind)}


def _home(name: str) -> str | None:
    """Which part of the guidance settings has a field of that name; None: no part."""
    if name in _names(GuidanceSettings) - {"alignment", "schedule"}:
        return ""
    if name in _names(AlignmentSettings):
        return "alignment"
    return "schedule" if name in (_names(GuideSchedule) - {"steps"}) | {"stop"} else None


def _value(text: str):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def parse_method(text: str) -> MethodSpec:
    """ "NAME" or "NAME:option=value,option=value". Raises ValueError naming what is wrong and what is allowed."""
    name, _, rest = text.partition(":")
    method = get_method(name)
    steps, guidance, options = None, {}, {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        key = key.replace("-", "_")
        if not equals:
            raise ValueError(f"method {text!r}: {part!r} is not option=value")
        if key == "steps":
            steps = _value(value)
            if not isinstance(steps, int) or steps < 1:
                raise ValueError(f"method {text!r}: steps is {value!r}; it must be a whole number above 0")
        elif key in method.options:
            options[key] = _value(value)
        elif name.startswith("gradpaint") and _home(key) in (("", "alignment") if method.schedule else PARTS):
            guidance[key] = _value(value)
        else:
            allowed = ["steps", *method.options]
            if method.schedule is not None:
                allowed.append("strength, alpha, lambda_al and the other guidance settings but those of the schedule")
            elif name == "gradpaint":
                allowed.append("stop, strength, alpha, lambda_al and the other guidance settings")
            raise ValueError(f"method {text!r}: {key!r} is no option of {name}; it takes {', '.join(allowed)}")
    spec = MethodSpec(text, name, steps, guidance, options)
    spec.settings(GuidanceSettings())  # values out of range are found here
    return spec
