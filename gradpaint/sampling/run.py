"""The sampling loop of the library: one for GradPaint and for every method that it is compared with.

Everything is written in VE form, `x = x0 + sigma*eps`; the unit-variance state of the paper is x / sqrt(1 + sigma^2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..method.adaptive_stop import StopReport
from ..method.decoders import View
from ..method.losses import check_shapes
from ..method.plan import RunPlan, Step
from ..method.record import StepRecord
from ..method.settings import check_choice
from ..method.step import Level, state_scale
from .evaluate import Denoiser, StepEvaluator
from .inpaint_method import InpaintMethod

SAMPLERS = ("ddpm", "ddim")


@dataclass
class InpaintResult:
    """What a run made.

    Attributes:
        image: (B, C, H, W), the known pixels exactly y's.
        record: One per model evaluation.
        evaluations: Of the model.
        backwards: Backward passes through the model.
        skipped: Samples whose displacement was left out because their gradient was not finite, over all steps.
        stop: How guidance ended.
    """

    image: Tensor
    record: list[StepRecord] = field(default_factory=list)
    evaluations: int = 0
    backwards: int = 0
    skipped: int = 0
    stop: StopReport = field(default_factory=StopReport)


def ddim_step(
    x: Tensor,
    x0_hat: Tensor,
    sigma: float,
    sigma_next: float,
    noise: Callable[[], Tensor],
    variance: Tensor | None = None,
) -> Tensor:
    """Deterministic DDIM (Song et al., eq. 12 with eta = 0), which in VE form is an Euler step."""
    return x0_hat + (x - x0_hat) * (sigma_next / sigma)


def ddpm_step(
    x: Tensor,
    x0_hat: Tensor,
    sigma: float,
    sigma_next: float,
    noise: Callable[[], Tensor],
    variance: Tensor | None = None,
) -> Tensor:
    """Ancestral sampling (Ho et al.; eq. 2 of the paper): draw from q(x_next | x, x0_hat).

    Args:
        x, x0_hat: The state and the estimate.
        sigma, sigma_next: Noise levels of the state and of the next one.
        noise: Draws standard normal noise, shaped like x.
        variance: Shaped like x, of models that have learned it; by default that of q.
    """
    if sigma_next == 0:
        return x0_hat
    keep = (sigma_next / sigma) ** 2
    spread = sigma_next * (1 - keep) ** 0.5 if variance is None else variance.sqrt()
    return x0_hat + (x - x0_hat) * keep + noise() * spread


STEPS = {"ddim": ddim_step, "ddpm": ddpm_step}


class VELevels:
    """States `x0 + sigma*eps`, as `method.plan.NoiseLevels`."""

    def __getitem__(self, sigma: float) -> Level:
        return 1.0, sigma

    def scale(self, sigma: float) -> float:
        return float(state_scale(sigma))


def initial_state(noise: Tensor, sigma: float, y: Tensor, mask: Tensor, full_noise: bool = True) -> Tensor:
    """First state of a run: noise at level sigma over the known image, with nothing in the hole. (B, C, H, W).

    Args:
        noise: Standard normal, shaped like y.
        sigma: The run's first level.
        y, mask: See `inpaint`.
        full_noise: The run starts at the model's highest level, where the state has the spread sqrt(1 + sigma^2) of a
            noised image of unit variance (ComfyUI's rule at denoise 1); otherwise noise is scaled by sigma.
    """
    return noise * ((1 + sigma**2) ** 0.5 if full_noise else sigma) + y * (1 - mask)


class Start(NamedTuple):
    """Where every method starts from.

    Attributes:
        y: The given image, blank under the hole.
        mask: On y's device, in its type.
        levels: The noise levels.
        x: The first state.
        draw: Draws the noise of the steps.
    """

    y: Tensor
    mask: Tensor
    levels: list[float]
    x: Tensor
    draw: Callable[[], Tensor]


def prepare(y: Tensor, mask: Tensor, sigmas: Tensor, noise: Tensor | None, seed: int, full_noise: bool) -> Start:
    """Check `inpaint`'s arguments of these names and start from them.

    Raises:
        ValueError: Names the argument that is wrong.
    """
    check_shapes(y, y, mask)
    levels = _checked_levels(sigmas)
    mask = mask.to(y)
    y = y.where(mask < 1, torch.zeros_like(y))  # nothing from under the hole can leak
    # As ComfyUI does: drawn on the CPU, the steps' noise with the next seed, so as not to repeat the first state's.
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(y.shape, generator=generator).to(y) if noise is None else noise.to(y)
    generator.manual_seed((seed + 1) % 2**64)
    if first.shape != y.shape:
        raise ValueError(f"noise has shape {tuple(first.shape)}, but must have y's shape {tuple(y.shape)}")
    x = initial_state(first, levels[0], y, mask, full_noise)
    return Start(y, mask, levels, x, lambda: torch.randn(y.shape, generator=generator).to(y))


def run_method(
    denoiser: Denoiser,
    y: Tensor,
    mask: Tensor,
    method: InpaintMethod,
    *,
    sigmas: Tensor,
    noise: Tensor | None = None,
    seed: int = 0,
    sampler: str = "ddim",
    full_noise: bool = True,
    clip: tuple[float, float] | None = (-1.0, 1.0),
    progress: bool = True,
    callback: Callable[[StepRecord], None] | None = None,
    keep_x0: bool | Collection[int] = False,
    keep_gradients: bool | Collection[int] = False,
    view: View | None = None,
    learned_variance: bool = True,
) -> InpaintResult:
    """Repaint y's hole by a method.

    Args:
        denoiser: See `inpaint`. settings.gradient "cond" needs its `through_cond` (see classifier_free.ClassifierFree),
            without one it has a single branch; a learned variance needs `LearnsVariance`.
        y, mask, sigmas, noise, seed, sampler, clip: See `inpaint`.
        method: What happens to the known region and the states.
        full_noise: See `initial_state`.
        progress: Show a bar.
        callback: Called with each step's record; may raise to stop the run.
        keep_x0: Put x0_hat (before compositing) of every step (True) or of these into the record.
        keep_gradients: Put the gradient maps of each loss term (Fig. 3a) into the record, of every guided step (True)
            or of those of these steps; one more backward pass for each further term, counted among the result's.
        view: For models of latents: the decoded image that the loss at the border looks at, see `decoders.view`;
            without one it looks at the model's own images.
        learned_variance: With ddpm, the noise of each step has the variance that the model has learned, if it has;
            otherwise that of q(x_next | x, x0_hat).
    """
    check_choice("sampler", sampler, SAMPLERS)
    start = prepare(y, mask, sigmas, noise, seed, full_noise)
    count = len(start.levels) - 1
    keep_x0, map_steps = (range(count) if keep is True else keep or () for keep in (keep_x0, keep_gradients))
    plan = RunPlan(method.settings, start.y, start.mask, count)
    evaluate = StepEvaluator(denoiser, method, plan, start.y, start.mask, view, map_steps)
    evaluate.wants_variance = learned_variance and sampler == "ddpm"
    result, x, path = InpaintResult(image=start.y), start.x, method.path(count)
    for index, index_next in zip(tqdm(path[:-1], desc=method.name, disable=not progress), path[1:]):
        step = Step(index, start.levels[index], start.levels[index_next])
        if index_next < index:  # back up the noise
            x = x + (step.sigma_next**2 - step.sigma**2) ** 0.5 * start.draw()
            continue
        x, record = _step(x, step, start, method, evaluate, STEPS[sampler], clip, index in keep_x0)
        result.record.append(record)
        if callback is not None:
            callback(record)
    result.evaluations, result.backwards, result.skipped = len(result.record), evaluate.backwards, plan.skipped
    result.stop = plan.report()
    result.image = _finished(x, start, method, clip)
    return result


def _step(
    x: Tensor,
    step: Step,
    start: Start,
    method: InpaintMethod,
    evaluate: StepEvaluator,
    sampler_step: Callable[..., Tensor],
    clip: tuple[float, float] | None,
    keep_x0: bool,
) -> tuple[Tensor, StepRecord]:
    """One step down: the next state and what was done."""
    y, mask, draw, levels = start.y, start.mask, start.draw, VELevels()
    x0_hat, record = evaluate(x, step)
    record.x0_hat = x0_hat.cpu() if keep_x0 else None
    x0_hat = method.to_sampler(x0_hat if clip is None else x0_hat.clamp(*clip), y, mask)
    x = sampler_step(x, x0_hat, step.sigma, step.sigma_next, draw, evaluate.variance(step))
    displacement = method.displacement(evaluate.plan, step, levels, mask)
    x = x if displacement is None else x + displacement
    if method.replaces_state and step.sigma_next > 0:
        x = method.enter(x, y, mask, draw(), levels[step.sigma_next])
    return x, record


def _finished(x: Tensor, start: Start, method: InpaintMethod, clip: tuple[float, float] | None) -> Tensor:
    """The result from a run's last state: clipped last, the known pixels exactly y's."""
    mixed = method.replaces_state and start.levels[-1] > 0  # `enter` has mixed gray parts at that level already
    image = x if mixed else method.end(x, start.y, start.mask)
    return torch.where(start.mask > 0, image if clip is None else image.clamp(*clip), start.y)


def _checked_levels(sigmas: Tensor) -> list[float]:
    levels = torch.as_tensor(sigmas, dtype=torch.float64).tolist()
    descending = all(high > low for high, low in zip(levels, levels[1:]))
    if len(levels) < 2 or not descending or levels[-1] < 0:
        raise ValueError(f"sigmas is {levels}, but must hold at least two noise levels, descending, the last one >= 0")
    return levels
