"""A denoiser that costs nothing, and small runs with it."""

import pytest
import torch

from gradpaint.evaluation.block import Block, Scoring
from gradpaint.evaluation.dataset import Cases
from gradpaint.evaluation.methodspec import parse_method
from gradpaint.evaluation.runner import Setup


class Denoiser:
    """The best denoiser of white images with unit variance. `calls` counts; `stop_at`: Ctrl-C at that call."""

    image_size, size_multiple = 16, 8
    sigmas = torch.linspace(0.05, 5.0, 20, dtype=torch.float64)

    def __init__(self):
        self.calls, self.stop_at = 0, None

    def __call__(self, x, sigma):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return x / (1 + torch.as_tensor(sigma).to(x) ** 2)


@pytest.fixture
def denoiser():
    return Denoiser()


@pytest.fixture
def make_block(tmp_path):
    """A block of scenes without LPIPS; keyword arguments replace parts of it."""

    def make(
        methods=("combine_image", "gradpaint"),
        seeds=(0,),
        count=5,
        folder=None,
        batch=2,
        results=None,
        steps=3,
        **scoring,
    ):
        cases = Cases("scenes", (16, 16), count, "coverage", {"coverage": 0.3})
        scoring = Scoring(**{"net": "none", "sheets": 0} | scoring)
        return Block(
            "test",
            folder or tmp_path / "run",
            cases,
            [parse_method(text) for text in methods],
            list(seeds),
            Setup(steps=steps, batch=batch),
            scoring,
            {"data": "scenes", "model": "white"},
            results or {},
        )

    return make
