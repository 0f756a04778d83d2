"""GradPaint and its two baselines on any denoiser, as one function."""

from __future__ import annotations

from collections.abc import Callable, Collection

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
        denoiser: (x, sigma) -> x0_hat, differentiable in x; x in VE form (B, C, H, W), sigma 0-dim. settings.gradient
            "cond" needs its `through_cond` (see classifier_free.ClassifierFree); without one it has a single branch.
        y: (B, C, H, W), the image. What is under the hole is never looked at.
        mask: (B or 1, 1 or C, H, W), 1 = repaint, 0 = known; gray values mix.
        sigmas: (steps + 1,), descending noise levels ending in 0, e.g. `sigmas.spaced_sigmas(denoiser.sigmas, 50)`.
        noise: (B, C, H, W), standard normal, for the first state; by default drawn on the CPU from `seed`.
        seed: Of the first noise; the noise that ddpm adds comes from seed + 1.
        method: "gradpaint": eqs. 3 and 5-9; "combine_image": eq. 3 alone; "combine_noisy": eq. 4 alone.
        sampler: "ddim" or "ddpm".
        settings: GradPaint's; None for the defaults.
        full_noise: See `run.initial_state`.
        clip: Range that x0_hat is clipped to before the step; None for latent models.
        progress: Show a bar.
        keep_x0: Put x0_hat (before compositing) of every step (True) or of these into the record.
        callback: Called with each step's record; may raise to stop the run.
        view: For models of latents: the decoded image that the alignment loss looks at, see `decoders.view`; without
            one it looks at the model's own images.
        keep_gradients: Put the gradient maps of each loss term (Fig. 3a) into the record, of every guided step (True)
            or of those of these steps; one more backward pass each, counted among the result's.
        learned_variance: With ddpm, the noise of each step has the variance that the model has learned, if it has;
            otherwise that of q(x_next | x, x0_hat).

    Raises:
        ValueError: Names the argument that is wrong.
    """
    check_choice("method", method, METHODS)
    chosen: dict[str, Callable[[], InpaintMethod]] = {
        "gradpaint": lambda: InpaintMethod(settings or GuidanceSettings()),
        "combine_image": CombineImage,
        "combine_noisy": CombineNoisy,
    }
    return run_method(
        denoiser,
        y,
        mask,
        chosen[method](),
        sigmas=sigmas,
        noise=noise,
        seed=seed,
        sampler=sampler,
        full_noise=full_noise,
        clip=clip,
        progress=progress,
        callback=callback,
        keep_x0=keep_x0,
        keep_gradients=keep_gradients,
        view=view,
        learned_variance=learned_variance,
    )
