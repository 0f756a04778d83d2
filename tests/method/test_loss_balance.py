"""How strongly the two terms of eq. 8 push, with the paper's weight: golden numbers, and loops that derive them.

The balance is 400 * |dL_al / dx0_hat| / |dL_mse / dx0_hat|. The loops below were written from eqs. 5-7 alone and share
nothing with the library. benchmarks/loss_balance.py measures the same on more masks and estimates.
"""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradpaint.masks import masks_above
from gradpaint.method.settings import ALIGNMENT_LOSS, AlignmentSettings, GuidanceSettings
from gradpaint.method.terms import ALIGNMENT, MSE, loss_terms
from gradpaint.models.scenes import HELD_OUT_SEEDS, landscape

NOISE = 0.2
# (eq. 5, 400 * eq. 6, balance) by softness
SCENES = {
    0: {0.0: (0.0925603604, 7.17316637, 522.675133), 0.5: (0.0925603604, 1.23968446, 59.914595)},
    1: {0.0: (0.0792831741, 6.62924049, 905.709389), 0.5: (0.0792831741, 1.4194847, 66.6910592)},
    2: {0.0: (0.0855949233, 13.3748481, 653.038598), 0.5: (0.0855949233, 2.12791988, 86.2949428)},
    3: {0.0: (0.0919627893, 23.269052, 799.87311), 0.5: (0.0919627893, 4.56912597, 116.5804)},
}
PHOTOS = {
    "astronaut.png": {0.0: (0.0888633042, 2.06628761, 238.464375), 0.5: (0.0888633042, 0.367097518, 34.3011415)},
    "chelsea.png": {0.0: (0.0791559154, 3.0798539, 386.202098), 0.5: (0.0791559154, 0.539264036, 43.8639452)},
    "coffee.png": {0.0: (0.0970770489, 1.8455591, 238.142368), 0.5: (0.0970770489, 0.365842722, 33.3257646)},
    "kodim03.png": {0.0: (0.0654395038, 3.50082295, 373.528301), 0.5: (0.0654395038, 0.646138562, 51.447437)},
    "kodim04.png": {0.0: (0.0815243962, 2.45009894, 1308.64857), 0.5: (0.0815243962, 0.433741156, 33.3421014)},
    "kodim15.png": {0.0: (0.0893522868, 3.2944231, 341.097375), 0.5: (0.0893522868, 0.642137891, 43.7905038)},
    "kodim19.png": {0.0: (0.083264701, 2.78940713, 308.288752), 0.5: (0.083264701, 0.577048926, 35.4235588)},
    "kodim23.png": {0.0: (0.0878108598, 2.79237739, 329.128306), 0.5: (0.0878108598, 0.468611364, 33.5301258)},
    "kodim24.png": {0.0: (0.0740573185, 3.2686643, 371.602988), 0.5: (0.0740573185, 0.644628066, 47.4894897)},
    "rocket.png": {0.0: (0.10096565, 1.97405768, 211.648564), 0.5: (0.10096565, 0.309483963, 25.7002092)},
}


def by_loops(x0_hat, y, mask, softness):
    """(eq. 5, 400 * eq. 6, balance) of (3, H, W), (3, H, W) and (H, W), all float64; mask is 1 in the hole, else 0."""
    height, width = mask.shape
    known, pixels = 1.0 - mask, height * width
    difference = known * (x0_hat - y)
    collage = mask * x0_hat + known * y
    gradient, total = np.zeros_like(x0_hat), 0.0
    for i in range(height):
        for j in range(width):
            mx = known[i, j + 1] - known[i, j] if j + 1 < width else 0.0
            my = known[i + 1, j] - known[i, j] if i + 1 < height else 0.0
            if mx == my == 0.0:
                continue
            mx, my = mx / math.hypot(mx, my), my / math.hypot(mx, my)
            for plane, slope in zip(collage, gradient):
                a = plane[i, j + 1] - plane[i, j] if j + 1 < width else 0.0
                b = plane[i + 1, j] - plane[i, j] if i + 1 < height else 0.0
                length = math.sqrt(a * a + b * b + softness * softness)
                if length == 0.0:
                    continue
                cosine = (a * mx + b * my) / length
                total += cosine**2
                of_a = 2 * cosine * (mx - cosine * a / length) / length
                of_b = 2 * cosine * (my - cosine * b / length) / length
                if j + 1 < width:
                    slope[i, j + 1] += of_a
                    slope[i, j] -= of_a
                if i + 1 < height:
                    slope[i + 1, j] += of_b
                    slope[i, j] -= of_b
    gradient *= mask
    of_alignment = 400 / 3 / pixels * math.sqrt((gradient**2).sum())
    of_mse = 2 / pixels * math.sqrt((difference**2).sum())  # known is 0 or 1
    return (difference**2).sum() / pixels, 400 / 3 / pixels * total, of_alignment / of_mse


def by_library(x0_hat, y, mask, softness):
    alignment = AlignmentSettings(lambda_al=400.0, softness=softness, loss=ALIGNMENT_LOSS)
    terms = {term.name: term for term in loss_terms(GuidanceSettings(alignment=alignment))}
    leaf = torch.from_numpy(x0_hat)[None].requires_grad_()
    y, mask = torch.from_numpy(y)[None], torch.from_numpy(mask)[None, None]
    values, sizes = [], []
    for name in (MSE, ALIGNMENT):
        value = terms[name].weight * terms[name].function(leaf, y, mask, None)
        values.append(value.item())
        sizes.append(torch.autograd.grad(value.sum(), leaf)[0].square().mean().sqrt().item())
    return *values, sizes[1] / sizes[0]


def problem(pixels, number):
    """An 8-bit image, (H, W, 3), with noise, and a thick mask of that number."""
    y = np.ascontiguousarray(pixels.transpose(2, 0, 1)) / 127.5 - 1
    noise = np.random.RandomState(number).standard_normal(y.shape)
    mask = masks_above(0.1, "thick", *y.shape[1:], 1, first_seed=100 * number)[0, 0].double().numpy()
    return y + NOISE * noise, y, mask


def check(pixels, number, expected):
    """Both derivations give the golden numbers."""
    for softness, golden in expected.items():
        case = problem(pixels, number)
        assert by_loops(*case, softness) == pytest.approx(golden, rel=1e-6), softness
        assert by_library(*case, softness) == pytest.approx(golden, rel=1e-6), softness


@pytest.mark.parametrize("number", SCENES)
def test_on_scenes(number):
    check(landscape(HELD_OUT_SEEDS[number]), number, SCENES[number])


def test_on_photographs():
    """The middle 256 x 256 pixels of this project's ten photographs, which are not part of the repository."""
    folder = os.environ.get("GRADPAINT_PHOTOS")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"GRADPAINT_PHOTOS is {folder!r}; set it to the folder with the ten photographs")
    for number, (name, expected) in enumerate(PHOTOS.items()):
        with Image.open(Path(folder) / name) as photo:
            left, top = (photo.width - 256) // 2, (photo.height - 256) // 2
            check(np.asarray(photo.convert("RGB").crop((left, top, left + 256, top + 256))), number, expected)
