"""GradPaint and its two baselines on any denoiser, as one function."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor

from ..method.decoders import View
from ..method.record import StepRecord
from ..method.settings import GuidanceSettings, check_choice
from .baselines.combine import CombineImage, CombineNoisy
from .evaluate import Denoiser
from .inpaint_method import InpaintMethod
from .run import InpaintResult, run_method

METHODS = ("gradpaint", "combine_image", "combine_noisy")


def inpaint(
    denoiser: Denoiser,
    y: Tensor,
    mask: Tensor,
    *,
    sigmas: Tensor,
    noise: Tensor | None = None,
    seed: int = 0,
    method: str = "gradpaint",
    sampler: str = "ddim",
    settings: GuidanceSettings | None = None,
    full_noise: bool = True,
    clip: tuple[float, float] | None = (-1.0, 1.0),
    progress: bool = True,
    keep_x0: bool | Collection[int] = False,
    callback: Callable[[StepRecord], None] | None = None,
    view: View | None = None,
    keep_gradients: bool | Collection[int] = False,
    learned_variance: bool = True,
) -> InpaintResult:
    """Repaint y's hole.

    Args:
        denoiser: (x, sigma) -> x0_hat, differentiable in x; x in VE form (B, C, H, W), sigma 0-dim; see
            `run_method` for what else it may have.
        y: (B, C, H, W), the image. What is under the hole is never looked at.
        mask: (B or 1, 1 or C, H, W), 1 = repaint, 0 = known; gray values mix.
        sigmas: (steps + 1,), descending noise levels ending in 0, e.g. `sigmas.run_sigmas(denoiser, 50)`.
        noise: (B, C, H, W), standard normal, for the first state; by default drawn on the CPU from `seed`.
        seed: Of the first noise; the noise that ddpm adds comes from seed + 1.
        method: "gradpaint": eqs. 3, 8 and 9, with the losses that the settings name; "combine_image": eq. 3 alone;
            "combine_noisy": eq. 4 alone.
        sampler: "ddim" or "ddpm".
        settings: GradPaint's; None for the defaults.
        clip: Range that x0_hat is clipped to before the step; None for latent models.
        full_noise, progress, callback, keep_x0, keep_gradients, view, learned_variance: See `run_method`.

    Raises:
        ValueError: Names the argument that is wrong.
    """
    check_choice("method", method, METHODS)
    chosen: dict[str, Callable[[], InpaintMethod]] = {
        "gradpaint": lambda: InpaintMethod(settings or GuidanceSettings()),
        "combine_image": CombineImage,
        "combine_noisy": CombineNoisy,
    }
    start: dict[str, Any] = dict(sigmas=sigmas, noise=noise, seed=seed, full_noise=full_noise)
    steps: dict[str, Any] = dict(sampler=sampler, clip=clip, view=view, learned_variance=learned_variance)
    shown: dict[str, Any] = dict(keep_x0=keep_x0, keep_gradients=keep_gradients, callback=callback, progress=progress)
    return run_method(denoiser, y, mask, chosen[method](), **start, **steps, **shown)
