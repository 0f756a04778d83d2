"""The inpainting methods by name, as patches on the host's MODEL.

GREYFILL and the COPY oracles are not among them: they need no model, and what is gray in pixels is not so in latents.
"""

from __future__ import annotations

from typing import Any

from ....gradpaint.method.settings import GuidanceSettings, MemorySettings, check_choice
from ....gradpaint.sampling.methods import METHODS
from .wrapper import GradPaintWrapper, OnRecord, with_wrapper

NAMES = tuple(name for name, method in METHODS.items() if not method.oracle)


def apply_method(
    model: Any,
    method: str,
    *,
    settings: GuidanceSettings | None = None,
    on_record: OnRecord | None = None,
    memory: MemorySettings | None = None,
    **options: float,
) -> Any:
    """A clone of the host's ModelPatcher `model` whose masked sampling runs are this method's.

    Args:
        model: The host's ModelPatcher.
        method: See NAMES.
        settings: GradPaint's, None for the defaults; gradpaint_fast and gradpaint_full replace its schedule.
        on_record, memory: See `apply_gradpaint`.
        options: Of any of the methods, see `Method.options`; each takes its own.

    Raises:
        ValueError: An unknown method, or one of its options out of range.
    """
    check_choice("method", method, NAMES)
    known = {name for other in METHODS.values() for name in other.options}
    for name in options:
        check_choice("option", name, sorted(known))
    chosen = METHODS[method]
    own = {name: value for name, value in options.items() if name in chosen.options}
    return with_wrapper(model, GradPaintWrapper(chosen.make(settings, **own), None, on_record, memory))
