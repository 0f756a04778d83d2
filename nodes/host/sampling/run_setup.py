"""Everything that a run is made of, settled before its first step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import comfy.cli_args
import torch
from torch import Tensor

from ....gradpaint.method.decoders import Decoder
from ....gradpaint.method.plan import Progress, step_kinds
from ....gradpaint.method.record import StepKind
from ....gradpaint.method.settings import GuidanceSettings
from ....gradpaint.sampling.inpaint_method import InpaintMethod
from ..autograd.bridge import differentiable
from ..autograd.compiled import check_engine
from ..autograd.weight_hooks import WeightGroups
from ..latents.decoders import alignment_on
from ..memory.ladder import MemoryLadder
from .probe import CallMap
from .segment import Segment

UNGUIDED = GuidanceSettings(alpha=0.0)

SamplerCallback = Callable[[int, Tensor, Tensor, int], None]


@dataclass(frozen=True)
class RunSetup:
    """What a run is made of.

    Attributes:
        guider: The host's, with the model loaded.
        method: What happens to the known region and to the states.
        settings: The method's, with the loss at the border that this model allows; UNGUIDED where it takes no gradient.
        y: The given latent, clean, as the samplers see it.
        mask: Broadcasts to y, 1 = repaint.
        sigmas: Noise levels of the segment that is sampled now, (steps + 1,).
        segment: Where they lie in the whole run.
        resume: The plan's progress in the segments before.
        call_map: Which of the sampler's model calls are its steps; None if that could not be found out.
        ladder: How guided steps use memory.
        modules: What takes part in an evaluation and is made differentiable; none where no gradient is taken.
        decode: What the loss at the border sees latents through; None where it looks at the latent itself.
        fine_mask: The noise mask as the user gave it, of any size.
        keep_pictures: The record keeps what pictures of the run need.
        seed: The run's.
        callback: The host's, for previews and cancellation.
    """

    guider: Any
    method: InpaintMethod
    settings: GuidanceSettings
    y: Tensor
    mask: Tensor
    sigmas: Tensor
    segment: Segment
    call_map: CallMap | None
    ladder: MemoryLadder
    resume: Progress | None = None
    modules: tuple[torch.nn.Module, ...] = ()
    decode: Decoder | None = None
    fine_mask: Tensor | None = None
    keep_pictures: bool = False
    seed: int | None = None
    callback: SamplerCallback | None = None

    @property
    def takes_gradient(self) -> bool:
        """Whether a gradient is taken through the model."""
        count = len(self.sigmas) - 1 if self.call_map is None else self.call_map.total
        first, steps = self.segment.first, self.segment.first + count + self.segment.after
        kinds = step_kinds(self.settings, steps)[first : first + count]
        return self.settings.gradient != "x0" and StepKind.GUIDED in kinds

    @property
    def ends_clean(self) -> bool:
        """Whether no noise is left after the last step."""
        return float(self.sigmas[-1]) == 0

    @contextlib.contextmanager
    def differentiable_model(self, groups: WeightGroups | None) -> Iterator[None]:
        """The modules can be differentiated, and are recomputed as the ladder says, for the time of the block."""
        with differentiable(list(self.modules), groups), self.ladder.installed(list(self.modules), groups):
            yield


def settings_for(settings: GuidanceSettings | None, model: Any) -> GuidanceSettings:
    """The settings with the loss at the border that the host's BaseModel `model` allows."""
    if settings is None:
        return UNGUIDED
    through_model = settings.gradient != "x0"
    return dataclasses.replace(settings, alignment=alignment_on(model, settings.alignment, through_model))


def check_latent(model: Any, latent: Tensor, noise: Tensor) -> None:
    """Raise ValueError for a latent that is not this model's."""
    channels = getattr(model.latent_format, "latent_channels", None)
    if latent.ndim > 3 and channels not in (None, latent.shape[1]):  # packed ones have fewer dimensions
        raise ValueError(
            f"the latent has {latent.shape[1]} channels, but this model works on "
            f"{channels}: it is another model's. Encode the picture with the VAE that belongs to this "
            "model (pixel_space, in the VAE loader, for models of pixels)"
        )
    if latent.shape[1:] != noise.shape[1:]:  # Hunyuan Image's refiner
        raise ValueError(
            f"GradPaint needs the given latent to know what to keep, but {type(model).__name__} turns it "
            f"into one of shape {tuple(latent.shape)} and samples one of shape "
            f"{tuple(noise.shape)}: it starts from an empty latent only. Inpaint with the model that the "
            "picture is made with, and take the noise mask off the latent here"
        )


def differentiated_modules(guider: Any) -> tuple[torch.nn.Module, ...]:
    """The diffusion model and whatever else takes part in an evaluation (ControlNets, model patches and the like).

    Raises:
        ValueError: One of them has no backward pass.
    """
    if "multigpu_clones" in guider.model_options:
        raise ValueError(
            "GradPaint can't differentiate through a model split over several GPUs; remove the MultiGPU "
            "node from this model's path"
        )
    patchers = [*guider.loaded_models, *guider.model_patcher.model_patches_models()]
    models = [guider.inner_model, *(getattr(patcher, "model", None) for patcher in patchers)]
    models += vars(guider).values()  # DualModelGuider has a second one for the negative conditioning
    for cond in (cond for conds in guider.conds.values() for cond in conds):
        control = cond.get("control")
        while control is not None:  # the networks of Control-LoRAs and T2I adapters are on no list of the host's
            models += vars(control).values()
            control = getattr(control, "previous_controlnet", None)
    modules = tuple({id(model): model for model in models if isinstance(model, torch.nn.Module)}.values())
    for model in modules:
        if hasattr(model, "diffusion_model"):
            check_engine(model)
    return modules


def weight_groups(guider: Any) -> WeightGroups | None:
    """For a model whose weights change with the conditioning; None where no conditioning has hooks."""
    patcher = guider.model_patcher
    hooked = any(cond.get("hooks") is not None for conds in guider.conds.values() for cond in conds)
    return WeightGroups(patcher) if hooked or patcher.current_hooks is not None else None


def with_one_noise_level(conds: dict) -> dict:
    """Conditioning that gives every component of the state the noise level it has.

    The host keeps known regions clean for some video models (LTXV, Cosmos Predict 2, Wan 2.2) and tells them so by the
    mask. Here the known region is as noisy as the hole (eq. 3). Negative values are marks of another kind.
    """

    def changed(cond: dict) -> dict:
        model_conds = {
            key: value._copy_with(value.cond.where(value.cond < 0, 1.0)) if key.endswith("denoise_mask") else value
            for key, value in cond.get("model_conds", {}).items()
        }
        return {**cond, "model_conds": model_conds}

    return {name: [changed(cond) for cond in group] for name, group in conds.items()}


def without_graph_replay(executor: Callable, *args: Any, **kwargs: Any) -> Any:
    """`outer_sample` wrapper: hosts from 0.34 on replay recorded CUDA graphs, which have no backward pass."""
    flags = comfy.cli_args.args
    before = getattr(flags, "disable_comfy_compiler", None)
    if before is None:
        return executor(*args, **kwargs)
    flags.disable_comfy_compiler = True
    try:
        return executor(*args, **kwargs)
    finally:
        flags.disable_comfy_compiler = before
