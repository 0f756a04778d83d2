"""The paper's figs. 2, 3b and 10 as contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from .contact_sheet import contact_sheet

CELL = 128  # pixels


def estimate_sheet(
    rows: Mapping[str, Mapping[int, Tensor]], steps: int, masked: Tensor, cell: int = CELL
) -> Image.Image:
    """Draw the estimates x0_hat of several runs, one row each, at shares of the run (figs. 2 and 3b).

    Args:
        rows: name of the row -> step, from 0 -> image (3, H, W) in [-1, 1]; every row has the same steps.
        steps: of the whole run.
        masked: (3, H, W), the input as it is shown, at the left of each row.
        cell: largest side of an image, in pixels.
    """
    shown = _common_steps(rows)
    labels = ["input", *(f"{(step + 1) / steps:.0%}" for step in shown)]
    pictures = [[masked, *(images[step] for step in shown)] for images in rows.values()]
    return contact_sheet(pictures, labels, list(rows), cell)


def _common_steps(rows: Mapping[str, Mapping[int, Tensor]]) -> list[int]:
    if not rows:
        raise ValueError("rows is empty; give at least one")
    first = sorted(next(iter(rows.values())))
    for name, images in rows.items():
        if not first or sorted(images) != first:
            raise ValueError(f"row {name!r} has steps {sorted(images)}; every row must have the same, at least one")
    return first


def sample_sheet(
    rows: Mapping[str, Sequence[Tensor]], seeds: Sequence[int], masked: Tensor, cell: int = CELL
) -> Image.Image:
    """Draw samples of one image, a row per method and a column per seed, whose noise its methods share (fig. 10).

    Args:
        rows: name of the method -> one image (3, H, W) in [-1, 1] per seed.
        seeds: of the noise.
        masked: (3, H, W), the input as it is shown, at the left of each row.
        cell: largest side of an image, in pixels.
    """
    if not rows:
        raise ValueError("rows is empty; give at least one")
    return contact_sheet(
        [[masked, *images] for images in rows.values()],
        ["input", *(f"seed {seed}" for seed in seeds)],
        list(rows),
        cell,
    )
