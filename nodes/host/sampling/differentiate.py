"""One differentiated model call: x0_hat and the gradient of the loss in the state that it was computed from."""

from __future__ import annotations

import contextlib
import dataclasses

import comfy.utils
import torch
from torch import Tensor

from ....gradpaint.method.decoders import Decoder, View, view
from ....gradpaint.method.gradient import LossGradient, loss_gradient
from ....gradpaint.method.losses import border_band
from ....gradpaint.method.settings import AlignmentSettings
from ..autograd.attention import differentiable_attention, with_differentiable_attention
from ..autograd.bridge import grad_enabled, ordinary
from ..autograd.gradient_watch import gradient_watch
from ..latents.packed import part_shapes
from ..memory.checkpoint import StepAgain
from ..memory.device_memory import is_out_of_memory
from ..memory.ladder import MemoryLadder
from ..memory.restart import StartOfStep

ADVICE = (
    "Take the model patches before GradPaint out one by one to find the one in the way, or set strength to 0 to "
    "keep the known region without guidance."
)


class Differentiator:
    """Made once per run, called at every step whose gradient is asked for."""

    def __init__(self, guider, alignment: AlignmentSettings, y: Tensor, ladder: MemoryLadder):
        self.guider, self.alignment, self.y, self.ladder = guider, alignment, y, ladder
        self._conds = None
        self._writes_in_place = self._foreign_tensors = False  # what the model turns out to need, see _adapts_to
        self._last: tuple[Tensor, Tensor | None, View | None] | None = None  # a mask, its border, its view
        self.decode: Decoder | None = None  # what the alignment loss sees latents through, see `decoders`
        self.fine_mask: Tensor | None = None  # the noise mask as the user gave it, of any resolution
        self._watched = False
        self.around = contextlib.nullcontext  # see compiled.guided_only

    @property
    def without_decoder(self) -> AlignmentSettings:
        """The alignment loss of a step that takes no gradient: none where it would need a decoder."""
        return self.alignment if self.decode is None else dataclasses.replace(self.alignment, lambda_al=0.0)

    def __call__(
        self,
        executor,
        x: Tensor,
        timestep: Tensor,
        model_options: dict,
        seed,
        sigma: float,
        mask: Tensor,
        of: str = "total",
    ) -> tuple[Tensor, LossGradient | None]:
        """executor: the host's predict_noise; x: the state, unchanged; sigma: its noise level; of: see `loss_gradient`.

        One model evaluation, made again from the same start where a way round a failure is left; no gradient where
        memory allows for none."""
        conds = self.guider.conds
        if self._conds is None and self.ladder.takes_gradient:
            self._conds = ordinary(conds)
        self.ladder.choose(part_shapes(conds, x.shape), sum(map(len, conds.values())))
        start = StartOfStep(model_options, x.device, self.ladder.network)
        try:
            self.guider.conds = self._conds
            while self.ladder.takes_gradient:
                found = self._attempt(executor, x, timestep, model_options, seed, sigma, mask, of)
                if found is not None:
                    return found
                start.restore()
        except RuntimeError as error:
            if "nference tensor" not in str(error) and "does not require grad" not in str(error):
                raise
            raise ValueError(f"GradPaint can't differentiate through this model: {error} {ADVICE}") from error
        finally:
            self.guider.conds = conds
        self._conds = None
        self.ladder.without_backward()
        return executor(x, timestep, model_options, seed), None

    def _attempt(self, *args) -> tuple[Tensor, LossGradient] | None:
        """(x0_hat, LossGradient), or None if the step has to be made again."""
        out_of_memory = False
        try:
            return self._gradient(*args)
        except StepAgain:
            pass
        except Exception as error:
            out_of_memory = is_out_of_memory(error)
            if not out_of_memory and not (isinstance(error, RuntimeError) and self._adapts_to(error)):
                raise
        # Outside the handler, where the failed graph, which the error's traceback held, is free.
        if out_of_memory:
            self.ladder.out_of_memory()
        return None

    def _adapts_to(self, error: RuntimeError) -> bool:
        """Whether a way round the error is left to try; it is taken from here on."""
        if "modified by an inplace operation" in str(error) and not self._writes_in_place:
            self._writes_in_place = True
            return True
        if "nference tensor" in str(error) and not self._foreign_tensors:
            self._foreign_tensors = True
            return True
        return False

    def _gradient(self, executor, x, timestep, model_options, seed, sigma: float, mask: Tensor, of: str):
        """(x0_hat, LossGradient)."""
        with (
            self.around(),
            grad_enabled(self._writes_in_place, self._foreign_tensors),
            differentiable_attention(),
            self.ladder.evaluation(count=not self._writes_in_place) as meter,
        ):
            leaf = x.clone().requires_grad_(True)
            with self._watch():
                x0_hat = executor(leaf, ordinary(timestep), with_differentiable_attention(model_options), seed)
            if not x0_hat.requires_grad:
                raise ValueError(
                    "GradPaint can't differentiate through this model: a patch or wrapper on it cuts "
                    f"the gradient off. {ADVICE}"
                )
            meter.sample()
            y, mask = ordinary(self.y), ordinary(mask)
            border, seen = self._at(mask, fine="denoise_mask_function" not in model_options)
            found = loss_gradient(leaf, x0_hat, y, mask, self.alignment, sigma, border, of, view=seen)
        return x0_hat.detach(), found

    @contextlib.contextmanager
    def _watch(self):
        """The run's first evaluation that comes to its end is looked at from inside."""
        with contextlib.nullcontext() if self._watched else gradient_watch([self.guider.inner_model]):
            yield
        self._watched = True

    def _at(self, mask: Tensor, fine: bool) -> tuple[Tensor | None, View | None]:
        """(border, view) of this mask: both as long as it stays the same. fine: fine_mask is this one, only sharper."""
        if self.alignment.lambda_al == 0:
            return None, None
        if self._last is None or not torch.equal(self._last[0], mask):
            border = None if self.decode else border_band(mask, self.alignment.border_width)
            self._last = mask, border, self._view(mask, fine) if self.decode else None
        return self._last[1:]

    def _view(self, mask: Tensor, fine: bool) -> View:
        """The given image is decoded once, whatever becomes of the mask."""
        width, before = self.alignment.border_width, None if self._last is None else self._last[2]
        if before is not None:
            return before.with_mask(mask, width)
        fine = fine and self.fine_mask is not None
        return view(self.decode, ordinary(self.y), mask, width, self._fitted if fine else None)

    def _fitted(self, image: torch.Size) -> Tensor:
        """The noise mask at the size of a decoded image, as the host fits it to the latent's."""
        return comfy.utils.reshape_mask(ordinary(self.fine_mask), (image[0], 1, *image[2:]))
