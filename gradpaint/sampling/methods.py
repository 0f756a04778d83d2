"""Every inpainting method and oracle by name, behind one call. Importing this module does not import torch.

A new method needs a file of its own with an `InpaintMethod` and a line in `_ALL`; the command, the evaluation and the
node *Inpaint Method* take it from there.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..method.settings import GuidanceSettings, GuideSchedule

if TYPE_CHECKING:
    from .inpaint_method import InpaintMethod
    from .run import InpaintResult


@dataclass(frozen=True)
class Method:
    """A method or an oracle.

    Attributes:
        name: The key in METHODS.
        title: For tables.
        summary: A line for help texts.
        place: Where it is: "module:name" of an `InpaintMethod`, or of a function for an oracle.
        oracle: No method that one could use, but a bound to compare with.
        options: Numbers that `run` takes beside the arguments that all methods share.
        extras: What else it takes, see `inpaint`.
        guided: It takes GuidanceSettings.
        schedule: Its own, in place of that of the settings.
    """

    name: str
    title: str
    summary: str
    place: str
    oracle: bool = False
    options: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    guided: bool = False
    schedule: GuideSchedule | None = None

    def make(self, settings: GuidanceSettings | None = None, **options: float) -> InpaintMethod:
        """The method itself, with its options.

        Args:
            settings: GradPaint's, None for the defaults; the other methods have no use for them.
            options: See `options`.
        """
        self._check(options, self.options)
        made = self._place()
        if not self.guided:
            return made(**options)
        settings = GuidanceSettings() if settings is None else settings
        return made(dataclasses.replace(settings, schedule=self.schedule or settings.schedule), **options)

    def run(
        self,
        denoiser: Any,
        y: Any,
        mask: Any,
        *,
        settings: GuidanceSettings | None = None,
        sampler: str = "ddpm",
        progress: bool = False,
        image: Any = None,
        codec: Any = None,
        **arguments: Any,
    ) -> InpaintResult:
        """Repaint y's hole; arguments as in `inpaint`, with these beside them.

        Args:
            denoiser, y, mask, settings, sampler, progress: See `inpaint`.
            image: (B, C, H, W), the true images; only oracles look at them.
            codec: (encode, decode) of a latent model, for latent_copy.
            arguments: The other arguments of `inpaint`, and this method's `options` and `extras`.

        Raises:
            ValueError: An option that this method does not have.
        """
        shared = {key: arguments.pop(key) for key in tuple(arguments) if key in _SHARED}
        self._check(arguments, (*self.options, *self.extras))
        if self.oracle:
            return self._place()(y, mask, image=image, codec=codec)
        from .run import run_method

        shared.update({key: arguments.pop(key) for key in self.extras if key in arguments})
        method = self.make(settings, **arguments)
        return run_method(denoiser, y, mask, method, sampler=sampler, progress=progress, **shared)

    def _check(self, options: dict[str, Any], allowed: tuple[str, ...]) -> None:
        unknown = sorted(set(options) - set(allowed))
        if unknown:
            raise ValueError(f"{unknown[0]} is no option of {self.name}; its options: {', '.join(allowed) or 'none'}")

    def _place(self) -> Any:
        module, name = self.place.split(":")
        return getattr(importlib.import_module(module, __package__), name)


_SHARED = ("sigmas", "noise", "seed", "full_noise", "clip", "callback", "learned_variance")


def get_method(name: str) -> Method:
    """METHODS[name]; ValueError naming the choices."""
    if name not in METHODS:
        raise ValueError(f"method is {name!r}, but must be one of: {', '.join(METHODS)}")
    return METHODS[name]


_KEPT = ("keep_x0", "keep_gradients", "view")


def _gradpaint(name: str, title: str, summary: str, schedule: GuideSchedule | None = None) -> Method:
    return Method(name, title, summary, ".inpaint_method:InpaintMethod", extras=_KEPT, guided=True, schedule=schedule)


_ALL = (
    Method(
        "combine_image",
        "Combine-image",
        "known pixels pasted into x0_hat at each step (eq. 3)",
        ".baselines.combine:CombineImage",
        extras=_KEPT,
    ),
    Method(
        "combine_noisy",
        "Combine-noisy",
        "known pixels, noised, pasted into the state (eq. 4)",
        ".baselines.combine:CombineNoisy",
        extras=_KEPT,
    ),
    Method(
        "repaint",
        "RePaint",
        "eq. 4, and each stretch of the run repeated from noise put back",
        ".baselines.repaint:RePaint",
        options=("resamplings", "jump_length"),
    ),
    Method(
        "mcg",
        "MCG",
        "eq. 4, and a gradient step on the known region's error at each step",
        ".baselines.mcg:MCG",
        options=("step",),
    ),
    Method(
        "dps",
        "DPS",
        "a gradient step on the known region's error at each step",
        ".baselines.dps:DPS",
        options=("zeta",),
    ),
    _gradpaint("gradpaint", "GradPaint", "eq. 3, and guidance (eqs. 8-9) with the given settings"),
    _gradpaint(
        "gradpaint_fast", "GradPaint-Fast", "GradPaint guided in the first half of the run", GuideSchedule.fast()
    ),
    _gradpaint("gradpaint_full", "GradPaint-Full", "GradPaint guided at every step", GuideSchedule.full()),
    Method("copy", "COPY", "oracle: the true image", ".baselines.oracles:copy", oracle=True),
    Method(
        "latent_copy",
        "latent COPY",
        "oracle: the true image through a latent model's codec",
        ".baselines.oracles:latent_copy",
        oracle=True,
    ),
    Method("greyfill", "GREYFILL", "oracle: the hole filled with gray", ".baselines.oracles:greyfill", oracle=True),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
