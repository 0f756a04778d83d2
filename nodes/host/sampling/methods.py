"""The paper's methods by name, as patches on the host's MODEL.

GREYFILL and the COPY oracles are not among them: they need no model, and what is grey in pixels is not so in latents.
"""

from __future__ import annotations

import dataclasses

from ....gradpaint.method.settings import GuidanceSettings, check_choice, check_number
from ....gradpaint.sampling.baselines.defaults import (
    DEFAULT_JUMP_LENGTH,
    DEFAULT_RESAMPLINGS,
    DEFAULT_STEP,
    DEFAULT_ZETA,
)
from ....gradpaint.sampling.methods import METHODS
from .baselines import UNGUIDED, DescentWrapper, ManifoldWrapper, NoisyWrapper
from .repaint import RepaintWrapper
from .wrapper import GradPaintWrapper, with_wrapper

NAMES = tuple(name for name, method in METHODS.items() if not method.oracle)


def apply_method(
    model,
    method: str,
    *,
    resamplings: int = DEFAULT_RESAMPLINGS,
    jump_length: int = DEFAULT_JUMP_LENGTH,
    step: float = DEFAULT_STEP,
    zeta: float = DEFAULT_ZETA,
    settings: GuidanceSettings | None = None,
    on_record=None,
    memory=None,
):
    """A clone of the host's ModelPatcher `model` whose masked sampling runs are this method's.

    method: see NAMES; resamplings, jump_length: of repaint; step: of mcg; zeta: of dps; settings: GradPaint's, None
    for the defaults; gradpaint_fast and gradpaint_full replace its schedule. on_record, memory: see `apply_gradpaint`.
    """
    check_choice("method", method, NAMES)
    check_number("step", step, 0.0, 1e3)
    check_number("zeta", zeta, 0.0, 1e3)
    settings = GuidanceSettings() if settings is None else settings
    settings = dataclasses.replace(settings, schedule=METHODS[method].schedule or settings.schedule)
    common = {"on_record": on_record, "memory": memory}
    wrappers = {
        "combine_image": lambda: GradPaintWrapper(UNGUIDED, **common),
        "combine_noisy": lambda: NoisyWrapper(UNGUIDED, **common),
        "repaint": lambda: RepaintWrapper(resamplings, jump_length, **common),
        "mcg": lambda: ManifoldWrapper(step, **common),
        "dps": lambda: DescentWrapper(zeta, **common),
    }
    wrapper = wrappers.get(method, lambda: GradPaintWrapper(settings, **common))
    return with_wrapper(model, wrapper())
