"""The models that `gradpaint evaluate` runs: of pixels or of latents."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.runner import Denoiser
from ..latent_diffusion import LatentDiffusionDenoiser
from . import arguments as shared

if TYPE_CHECKING:
    from .evaluate_inputs import Inputs


class Models:
    """Loads a checkpoint once for all blocks that follow each other with it; `denoiser` is the last one."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.denoiser: Denoiser = None
        self._path: Path | str | None = "none yet"

    def load(self, inputs: Inputs) -> Denoiser:
        """The denoiser for a data set; None where it has no model."""
        if not inputs.run_model:
            return None
        if inputs.model != self._path:
            device = shared.device(self.arguments.device)
            labeled = inputs.labels is not None or bool(self.arguments.paper)  # for pages, see below
            self.denoiser, _ = shared.load_any_model(self.arguments, inputs.model, device, labeled)
            self._path = inputs.model
        if inputs.labels is not None and isinstance(self.denoiser, LatentDiffusionDenoiser):
            if num_classes(self.denoiser) is None:
                raise ValueError(f"--labels, but --model {inputs.model} is unconditional; leave them out")
        if self.arguments.paper and num_classes(self.denoiser) and inputs.labels is None:
            if self.arguments.label is None:
                raise ValueError(f"--model {inputs.model} is class-conditional: give each image's class with --labels")
        return self.denoiser


def num_classes(denoiser: Denoiser) -> int | None:
    """How many classes a class-conditional model has, beside the one that stands for none; None: not conditional."""
    if isinstance(denoiser, LatentDiffusionDenoiser):
        classes, null = denoiser.config.num_classes, denoiser.config.null_label
        return classes if classes is None or null is None else classes - 1
    return getattr(getattr(getattr(denoiser, "config", None), "unet", None), "num_classes", None)
