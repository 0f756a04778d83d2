"""Methods as written on a command line: "gradpaint", "repaint:steps=250,resamplings=10", "gradpaint:preset=paper"."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule, preset
from ..sampling.methods import Method, get_method

GUIDANCE, ALIGNMENT, SCHEDULE = "guidance", "alignment", "schedule"  # the settings objects that a field may belong to
OFF = ("lambda_al", 0)  # no alignment loss
PREFIX = "alignment_"  # tells a field of the alignment's from one of the same name elsewhere: alignment_fraction=0.45


@dataclass(frozen=True)
class MethodSpec:
    """A method of `gradpaint.sampling.methods` with what it runs with.

    Attributes:
        label: its name in tables, files and records.
        name: in METHODS.
        steps: instead of the run's.
        guidance: fields of GuidanceSettings, those of its alignment and schedule included, to replace; "stop" is the
            fraction or "adaptive", "preset" the settings to start from instead of the run's.
        options: of the method itself.
        latent: run by a latent diffusion model, see `on_latents`.
    """

    label: str
    name: str
    steps: int | None = None
    guidance: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    latent: bool = False

    @property
    def recipe(self) -> str:
        """Everything but the label, as text: results of one label are kept only if they were made like this."""
        parts = [self.name, self.steps, self.guidance, self.options, *(["latent"] if self.latent else [])]
        return json.dumps(parts, sort_keys=True)

    @property
    def slug(self) -> str:
        """The label as a file name."""
        return slug(self.label)

    def settings(self, base: GuidanceSettings) -> GuidanceSettings:
        """`base`, or the method's preset, with its own guidance fields."""
        changes: dict[str, dict[str, Any]] = {GUIDANCE: {}, ALIGNMENT: {}, SCHEDULE: {}}
        for name, value in self.guidance.items():
            if name == "preset":
                base = preset(value)
            elif name == "stop":
                adaptive = value == "adaptive"
                changes[SCHEDULE] |= {"mode": "adaptive"} if adaptive else {"mode": "fraction", "fraction": value}
            else:
                changes[_owner(name) or GUIDANCE][name.removeprefix(PREFIX)] = value
        if "strength" in changes[GUIDANCE] and "alpha" not in changes[GUIDANCE]:
            changes[GUIDANCE]["alpha"] = None  # otherwise the base's alpha would override it
        return dataclasses.replace(
            base,
            **changes[GUIDANCE],
            alignment=dataclasses.replace(base.alignment, **changes[ALIGNMENT]),
            schedule=dataclasses.replace(base.schedule, **changes[SCHEDULE]),
        )

    def on_latents(self) -> MethodSpec:
        """The same method run by a latent model, which takes no alignment loss.

        Raises:
            ValueError: the method sets something of that loss, other than its weight to 0.
        """
        idle = [name for name, value in self.guidance.items() if _owner(name) == ALIGNMENT and (name, value) != OFF]
        if idle:
            raise ValueError(
                f"method {self.label!r} sets {idle[0]}, but latent models run without the alignment loss; leave it out"
            )
        return dataclasses.replace(self, latent=True)


def slug(label: str) -> str:
    """A label as a file name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", label).strip("_")


def _names(kind: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(kind)}


def _owner(name: str) -> str | None:
    """Which settings object has a field of that name; None: none of them."""
    if name in _names(GuidanceSettings) - {"alignment", "schedule"} | {"preset"}:
        return GUIDANCE
    if name in (_names(GuideSchedule) - {"steps"}) | {"stop"}:
        return SCHEDULE
    return ALIGNMENT if name.removeprefix(PREFIX) in _names(AlignmentSettings) else None


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def parse_method(text: str, label: str | None = None) -> MethodSpec:
    """Parse "NAME" or "NAME:option=value,option=value".

    Args:
        text: the method.
        label: its name in tables; None: the text.

    Raises:
        ValueError: names what is wrong and what is allowed.
    """
    name, _, rest = text.partition(":")
    method = get_method(name)
    steps: int | None = None
    guidance: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for assignment in filter(None, rest.split(",")):
        key, equals, value = assignment.partition("=")
        key = key.replace("-", "_")
        if not equals:
            raise ValueError(f"method {text!r}: {assignment!r} is not option=value")
        if key == "steps":
            number = _value(value)
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"method {text!r}: steps is {value!r}; it must be a whole number above 0")
            steps = number
        elif key in method.options:
            options[key] = _value(value)
        elif _guides(method, key):
            guidance[key] = _value(value)
        else:
            raise ValueError(f"method {text!r}: {key!r} is no option of {name}; it takes {_allowed(method)}")
    spec = MethodSpec(label or text, name, steps, guidance, options)
    spec.settings(GuidanceSettings())  # raises for values out of range
    return spec


def _guides(method: Method, key: str) -> bool:
    """Whether that is a guidance setting which this method follows."""
    if not method.name.startswith("gradpaint"):
        return False
    return _owner(key) in ((GUIDANCE, ALIGNMENT) if method.schedule else (GUIDANCE, ALIGNMENT, SCHEDULE))


def _allowed(method: Method) -> str:
    allowed = ["steps", *method.options]
    if method.schedule is not None:
        allowed.append("preset, strength, alpha, lambda_al and the other guidance settings except the schedule's")
    elif method.name == "gradpaint":
        allowed.append("preset, stop, strength, alpha, lambda_al and the other guidance settings")
    return ", ".join(allowed)
