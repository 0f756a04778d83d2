"""RePaint: Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models" (2022)."""

from __future__ import annotations

from ...method.settings import check_number
from .combine import CombineNoisy
from .defaults import DEFAULT_JUMP_LENGTH, DEFAULT_RESAMPLINGS


class RePaint(CombineNoisy):
    """Resampling: combine-noisy (eq. 4), and every few steps the state is noised again, q(x_t | x_(t-j)), and denoised
    again, so that the hole can take notice of the known region.

    Args:
        resamplings, jump_length: See `repaint_path`.
    """

    name = "repaint"

    def __init__(self, resamplings: int = DEFAULT_RESAMPLINGS, jump_length: int = DEFAULT_JUMP_LENGTH) -> None:
        super().__init__()
        self.resamplings, self.jump_length = resamplings, jump_length
        self.path(1)  # are they in range?

    def path(self, steps: int) -> list[int]:
        return repaint_path(steps, self.resamplings, self.jump_length)


def repaint_path(
    steps: int, resamplings: int = DEFAULT_RESAMPLINGS, jump_length: int = DEFAULT_JUMP_LENGTH
) -> list[int]:
    """The noise levels that a run visits, as indices into its steps + 1 levels, from 0 (noise) to `steps` (clean).

    A step down goes to the next index, a jump back goes `jump_length` indices up the noise at once. RePaint's
    schedule: the last noisy level and every `jump_length`-th one before it are each returned to `resamplings` - 1
    times, as long as there is room to jump back. Where jump_length divides the steps that is
    steps + (resamplings - 1) * (steps - jump_length) model evaluations: 2,410 for 250, 10, 10. A run of jump_length
    steps or fewer has no such level; it jumps from its last noisy level to its start.
    """
    check_number("steps", steps, 1, 10_000, integer=True)
    check_number("resamplings", resamplings, 1, 1000, integer=True)
    check_number("jump_length", jump_length, 1, 10_000, integer=True)
    jump = min(jump_length, steps - 1)
    remaining = {index: resamplings - 1 for index in range(steps - 1, jump - 1, -jump)} if jump else {}
    path = [0]
    while path[-1] < steps:
        path.append(path[-1] + 1)
        if remaining.get(path[-1], 0) > 0:
            remaining[path[-1]] -= 1
            path.append(path[-1] - jump)
    return path
