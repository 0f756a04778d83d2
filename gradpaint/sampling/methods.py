"""Every method and oracle of the paper by name, behind one call. Importing this module does not import torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from ..method.settings import GuidanceSettings, GuideSchedule

if TYPE_CHECKING:
    from .inpaint import InpaintResult


@dataclass(frozen=True)
class Method:
    """name: the key in METHODS; title: for tables; summary: a line for help texts; oracle: no method that one could
    use, but a bound to compare with; options: numbers that `run` takes beside the arguments that all methods share;
    extras: what else it takes, see `samplers.inpaint`; schedule: its own, in place of that of the settings.
    """

    name: str
    title: str
    summary: str
    oracle: bool
    options: tuple[str, ...]
    function: Callable[..., InpaintResult]
    extras: tuple[str, ...] = ()
    schedule: GuideSchedule | None = None

    def run(
        self,
        denoiser,
        y,
        mask,
        *,
        sigmas,
        noise=None,
        seed=0,
        sampler="ddpm",
        settings=None,
        full_noise=True,
        clip=(-1.0, 1.0),
        progress=False,
        callback=None,
        image=None,
        codec=None,
        **options,
    ) -> InpaintResult:
        """Repaint y's hole; arguments as in `samplers.inpaint`, with these beside them.

        settings  GradPaint's, None for the defaults; the other methods have no use for them.
        image     (B, C, H, W), the true images; only oracles look at them.
        codec     (encode, decode) of a latent model, for latent_copy.
        options   see `options` and `extras`; ValueError for any other.
        """
        unknown = sorted(set(options) - {*self.options, *self.extras})
        if unknown:
            allowed = ", ".join((*self.options, *self.extras)) or "none"
            raise ValueError(f"{unknown[0]} is no option of {self.name}; its options: {allowed}")
        return self.function(
            denoiser,
            y,
            mask,
            sigmas=sigmas,
            noise=noise,
            seed=seed,
            sampler=sampler,
            settings=settings,
            full_noise=full_noise,
            clip=clip,
            progress=progress,
            callback=callback,
            image=image,
            codec=codec,
            **options,
        )


def get_method(name: str) -> Method:
    """METHODS[name]; ValueError naming the choices."""
    if name not in METHODS:
        raise ValueError(f"method is {name!r}, but must be one of: {', '.join(METHODS)}")
    return METHODS[name]


def _sampled(
    name: str, title: str, summary: str, method: str = "gradpaint", schedule: GuideSchedule | None = None
) -> Method:
    """A method of `samplers.inpaint`; schedule replaces that of the settings."""

    def run(denoiser, y, mask, *, settings, image, codec, **arguments):
        from .inpaint import inpaint

        settings = GuidanceSettings() if settings is None else settings
        if schedule is not None:
            settings = dataclasses.replace(settings, schedule=schedule)
        return inpaint(denoiser, y, mask, method=method, settings=settings, **arguments)

    return Method(name, title, summary, False, (), run, ("keep_x0", "keep_gradients", "view"), schedule)


def _repaint(denoiser, y, mask, *, settings, image, codec, **arguments):
    from .baselines.repaint import repaint

    return repaint(denoiser, y, mask, **arguments)


def _mcg(denoiser, y, mask, *, settings, image, codec, **arguments):
    from .baselines.mcg import mcg

    return mcg(denoiser, y, mask, **arguments)


def _dps(denoiser, y, mask, *, settings, image, codec, **arguments):
    from .baselines.dps import dps

    return dps(denoiser, y, mask, **arguments)


def _copy(denoiser, y, mask, *, image, **unused):
    from .baselines.oracles import copy

    return copy(y, mask, image)


def _latent_copy(denoiser, y, mask, *, image, codec, **unused):
    from .baselines.oracles import latent_copy

    return latent_copy(y, mask, image, codec)


def _greyfill(denoiser, y, mask, **unused):
    from .baselines.oracles import greyfill

    return greyfill(y, mask)


_ALL = (
    _sampled("combine_image", "Combine-image", "known pixels pasted into x0_hat at each step (eq. 3)", "combine_image"),
    _sampled("combine_noisy", "Combine-noisy", "known pixels, noised, pasted into the state (eq. 4)", "combine_noisy"),
    Method(
        "repaint",
        "RePaint",
        "eq. 4, and each stretch of the run repeated from noise put back",
        False,
        ("resamplings", "jump_length"),
        _repaint,
    ),
    Method("mcg", "MCG", "eq. 4, and a gradient step on the known part's error at each step", False, ("step",), _mcg),
    Method("dps", "DPS", "a gradient step on the known part's error at each step", False, ("zeta",), _dps),
    _sampled("gradpaint", "GradPaint", "eqs. 3 and 5-9 with the given settings"),
    _sampled(
        "gradpaint_fast",
        "GradPaint-Fast",
        "GradPaint guided in the first half of the run",
        schedule=GuideSchedule.fast(),
    ),
    _sampled("gradpaint_full", "GradPaint-Full", "GradPaint guided at every step", schedule=GuideSchedule.full()),
    Method("copy", "COPY", "oracle: the true image", True, (), _copy),
    Method(
        "latent_copy", "latent COPY", "oracle: the true image through a latent model's codec", True, (), _latent_copy
    ),
    Method("greyfill", "GREYFILL", "oracle: the hole filled with grey", True, (), _greyfill),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
