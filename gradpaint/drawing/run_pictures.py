"""Pictures of a run as in the paper's Figs. 2, 3a and 9, drawn from what the run has kept.

Every function returns a PIL image; `as_image_batch` converts it to ComfyUI's IMAGE. Steps are counted from 0 in
arguments and from 1 on the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..method.record import StepRecord, titles_of
from ..method.terms import MSE, MSE_TITLE, TOTAL
from .contact_sheet import contact_sheet
from .plots import loss_plot, tradeoff_plot

__all__ = [
    "as_image_batch",
    "curves_of",
    "gradient_maps",
    "loss_curves",
    "pictures_of",
    "spread",
    "timeline",
    "tradeoff_plot",
]

COLUMNS = 8  # steps shown, by default
OUTLINE = (90, 220, 255)
TOTAL_TITLE = "total (eq. 8)"
# From black via purple and orange to pale yellow, in steps of equal lightness.
_HEAT = np.array(
    [(0, 0, 0), (48, 10, 84), (115, 25, 95), (180, 50, 75), (230, 95, 40), (250, 165, 30), (250, 245, 190)], dtype=float
)


T = TypeVar("T")


def spread(steps: Sequence[int], count: int = COLUMNS) -> list[int]:
    """Choose at most `count` of the steps, evenly spread, including the first and last (the last if `count` is 1).

    Raises:
        ValueError: `count` is below 1.
    """
    steps = list(steps)
    if count < 1:
        raise ValueError(f"count is {count}, but must be at least 1")
    if len(steps) <= count:
        return steps
    if count == 1:
        return steps[-1:]
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def timeline(
    estimates: Mapping[int, Tensor],
    other: Mapping[int, Tensor] | None = None,
    *,
    sigmas: Mapping[int, float] | None = None,
    names: Sequence[str] = ("GradPaint", "other"),
    count: int = COLUMNS,
    cell: int = 144,
) -> Image.Image:
    """Draw the estimates over the steps of a run, before compositing, one row per image (Fig. 2).

    Args:
        estimates: step -> x0_hat (B, 3, H, W) in [-1, 1]; videos (B, 3, T, H, W) show their middle frame.
        other: the same for a second run, drawn below each row; it must have the same steps and B.
        sigmas: step -> noise level, written above the columns.
        names: of the two runs.
        count: maximum number of columns.
        cell: size of an image, see `contact_sheet`.

    Raises:
        ValueError: no estimates, not RGB, or `other` has other steps or another B.
    """
    steps = spread(sorted(_not_empty("estimates", estimates)), count)
    runs = [estimates]
    if other is not None:
        _check_same(steps, estimates, other)
        runs.append(other)
    frames = [[_frames(run[step]) for step in steps] for run in runs]
    rows, labels = [], []
    for b in range(len(frames[0][0])):
        for name, run in zip(names, frames):
            rows.append([images[b] for images in run])
            labels.append(name)
    return contact_sheet(rows, _titles(steps, sigmas), labels if other is not None else None, cell)


def gradient_maps(
    maps: Mapping[int, Mapping[str, Tensor]],
    mask: Tensor,
    *,
    titles: Mapping[str, str] | None = None,
    sigmas: Mapping[int, float] | None = None,
    count: int = COLUMNS,
    cell: int = 144,
) -> Image.Image:
    """Draw where each loss term acts: |gradient| of the masked MSE, and below it of the loss at the border (Fig. 3a).

    Each picture has its own scale. The range of its bright ends (99.5th percentiles) is written below the row's name.

    Args:
        maps: guided step -> term -> |gradient|, see `term_maps`.
        mask: (B or 1, 1, H, W), 1 = repaint, possibly with frames; its outline is drawn.
        titles: term -> what it is called, see `record.titles_of`; by default its name.
        sigmas: step -> noise level, written above the columns.
        count: maximum number of columns.
        cell: size of a picture, see `contact_sheet`.

    Raises:
        ValueError: no maps.
    """
    steps = spread(sorted(_not_empty("maps", maps)), count)
    rows, labels = [], []
    names = [name for name in maps[steps[0]] if all(name in maps[step] for step in steps)]
    for b in range(len(maps[steps[0]][names[0]])):
        for name in names:
            drawn = [maps[step][name] for step in steps]
            hole = _middle(mask[b if len(mask) > 1 else 0], 3)[0]
            heat = [_heat_map(_middle(values[b], 2), hole, cell) for values in drawn]
            rows.append([picture for picture, _ in heat])
            tops = [top for _, top in heat]
            title = (titles or {}).get(name, name).partition(" (")[0]  # without its equation: the column is narrow
            labels.append(f"{title}\n{min(tops):.1e}\nto {max(tops):.1e}")
    return contact_sheet(rows, _titles(steps, sigmas), labels, cell)


def loss_curves(
    losses: Mapping[str, Sequence[float]],
    *,
    guided: Sequence[bool] = (),
    sigmas: Sequence[float] | None = None,
    title: str = "",
    size: tuple[int, int] = (900, 520),
) -> Image.Image:
    """Draw the loss (eq. 8) and its terms over a run, logarithmic; NaN and 0 leave gaps.

    Args:
        losses: title -> one value per step, see `curves_of`.
        guided: whether each step is guided, see `plots.loss_plot`.
        sigmas: noise levels, written below the steps instead of their numbers.
        title: above the plot.
        size: (width, height) in pixels.

    Raises:
        ValueError: there is nothing to draw.
    """
    curves = {name: [float(value) for value in values] for name, values in losses.items()}
    names = None if sigmas is None else [f"{sigma:.3g}" for sigma in sigmas]
    return loss_plot(curves, guided, title, "step" if sigmas is None else "sigma", "loss", size, names)


def curves_of(record: Sequence[StepRecord]) -> dict[str, list[float]]:
    """Return title -> values, means over the batch, of the loss and its terms; of the masked MSE if it stands alone.

    Args:
        record: one entry per step. Where no gradient was taken the value is NaN.
    """

    def values(name: str) -> list[float]:
        return [float(step.losses[name].float().mean()) if name in step.losses else math.nan for step in record]

    curves = {MSE_TITLE: values(MSE)}
    for name, title in titles_of(record).items():
        if name != MSE and any(value > 0 for value in values(name)):
            curves[title] = values(name)
    return {TOTAL_TITLE: values(TOTAL), **curves} if len(curves) > 1 else curves


def pictures_of(record: Sequence[StepRecord], mask: Tensor, title: str = "") -> dict[str, Image.Image]:
    """Draw "losses", and "timeline" and "gradients" if the run has kept what they show.

    Args:
        record: one entry per step, as in an `InpaintResult`.
        mask: of the run, (B or 1, 1, H, W).
        title: of the losses.
    """
    sigmas = {step.step: step.sigma for step in record}
    estimates = {step.step: step.x0_hat for step in record if step.x0_hat is not None}
    maps = {step.step: step.maps for step in record if step.maps}
    drawn = {"timeline": timeline(estimates, sigmas=sigmas)} if estimates else {}
    if maps:
        drawn["gradients"] = gradient_maps(maps, mask, titles=titles_of(record), sigmas=sigmas)
    return {**drawn, "losses": loss_curves(curves_of(record), guided=[s.guided for s in record], title=title)}


def as_image_batch(picture: Image.Image) -> Tensor:
    """Convert a picture to ComfyUI's IMAGE, (1, H, W, 3) float32 in [0, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).float()[None] / 255


def _titles(steps: Sequence[int], sigmas: Mapping[int, float] | None) -> list[str]:
    if sigmas is None:
        return [f"step {step + 1}" for step in steps]
    return [f"step {step + 1}, sigma {sigmas[step]:.2g}" for step in steps]


def _not_empty(name: str, values: Mapping[int, T]) -> Mapping[int, T]:
    if not values:
        raise ValueError(f"{name} is empty; set the run to keep what is drawn here")
    return values


def _check_same(steps: Sequence[int], estimates: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> None:
    """Raise ValueError unless both have the same number of images at each step."""
    for step in steps:
        if step not in other or len(other[step]) != len(estimates[step]):
            raise ValueError(
                f"other has steps {sorted(other)}, but must match estimates: step {step}, {len(estimates[step])} images"
            )


def _middle(t: Tensor, ndim: int) -> Tensor:
    """Reduce to `ndim` dimensions by taking the middle of those before the last two."""
    while t.ndim > ndim:
        axis = t.ndim - 3
        t = t.select(axis, t.shape[axis] // 2)
    return t


def _frames(x0_hat: Tensor) -> list[Tensor]:
    """Return each image, or the middle frame of each video, as (3, H, W)."""
    if x0_hat.ndim < 4 or x0_hat.shape[1] != 3:
        raise ValueError(
            f"estimates has a tensor of shape {tuple(x0_hat.shape)}, but must have RGB images (B, 3, H, W) "
            "or videos (B, 3, T, H, W)"
        )
    return [_middle(image, 3).float().nan_to_num() for image in x0_hat]


def _heat_map(values: Tensor, hole: Tensor, cell: int) -> tuple[Tensor, float]:
    """Draw values (H, W) with the hole's outline, enlarged to about `cell` pixels.

    Returns:
        (3, h, w) in [-1, 1], and the value at the bright end of the scale.
    """
    heat = values.float().nan_to_num(0.0, 0.0, 0.0).cpu().numpy()
    top = float(np.quantile(heat, 0.995)) or float(heat.max())
    place = np.clip(heat / top if top > 0 else heat, 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(place.astype(int), len(_HEAT) - 2)
    colors = _HEAT[low] + (place - low)[..., None] * (_HEAT[low + 1] - _HEAT[low])
    picture = Image.fromarray(colors.round().astype(np.uint8))
    factor = max(1, math.floor(cell / max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    _outline(picture, hole.cpu().numpy() > 0.5, factor)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1, top


def _outline(picture: Image.Image, hole: npt.NDArray[np.bool_], factor: int) -> None:
    """Draw a thin line between the pixels inside and outside the hole (H, W)."""
    draw = ImageDraw.Draw(picture)
    for row, column in np.argwhere(hole[:, 1:] != hole[:, :-1]):
        x = (column + 1) * factor - (factor > 1)
        draw.line((x, row * factor, x, (row + 1) * factor - 1), fill=OUTLINE)
    for row, column in np.argwhere(hole[1:] != hole[:-1]):
        y = (row + 1) * factor - (factor > 1)
        draw.line((column * factor, y, (column + 1) * factor - 1, y), fill=OUTLINE)
