"""One differentiated model call: x0_hat and the gradient of the loss in the state that it was computed from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import comfy.utils
import torch
from torch import Tensor

from ....gradpaint.method.decoders import Decoder, View, view
from ....gradpaint.method.gradient import LossGradient, loss_gradient
from ....gradpaint.method.losses import border_band
from ....gradpaint.method.settings import AlignmentSettings
from ....gradpaint.method.terms import TOTAL, Terms
from ..autograd.attention import differentiable_attention, with_differentiable_attention
from ..autograd.bridge import grad_enabled, ordinary
from ..autograd.gradient_watch import gradient_watch
from ..latents.packed import component_shapes
from ..memory.checkpoint import StepAgain
from ..memory.device_memory import is_out_of_memory
from ..memory.ladder import MemoryLadder
from ..memory.restart import StartOfStep

ADVICE = (
    "Take the model patches before GradPaint out one by one to find the one in the way, or set strength to 0 to "
    "keep the known region without guidance."
)


class ModelCall(NamedTuple):
    """A call of the host's predict_noise.

    Attributes:
        executor: The host's, which goes on with the wrappers and the guider.
        x: The state, never changed.
        timestep, model_options, seed: As the host passes them.
    """

    executor: Callable[..., Tensor]
    x: Tensor
    timestep: Tensor
    model_options: dict
    seed: Any

    def __call__(self) -> Tensor:
        """Make it."""
        return self.executor(self.x, self.timestep, self.model_options, self.seed)


class Differentiator:
    """Made once per run, called at every step whose gradient is asked for.

    Args:
        guider: The host's.
        alignment: Whose border width the loss has.
        y: The given latent.
        ladder: How to make do with memory.
        decode: What the loss at the border sees latents through; None: the latent itself.
        fine_mask: The noise mask as the user gave it, of any resolution.
    """

    def __init__(
        self,
        guider: Any,
        alignment: AlignmentSettings,
        y: Tensor,
        ladder: MemoryLadder,
        decode: Decoder | None = None,
        fine_mask: Tensor | None = None,
    ) -> None:
        self.guider, self.y, self.ladder = guider, y, ladder
        self.around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext  # see guided_only
        self._seen = _Seen(alignment, y, decode, fine_mask)
        self._conds: Any = None
        self._writes_in_place = self._foreign_tensors = False  # what the model turns out to need, see _adapts_to
        self._watched = False

    def __call__(
        self, call: ModelCall, sigma: float, mask: Tensor, terms: Terms, of: str = TOTAL
    ) -> tuple[Tensor, LossGradient | None]:
        """x0_hat and the loss's gradient; None where memory allows for none.

        One model evaluation, made again from the same start as long as a way around a failure is left.

        Args:
            call: At the state to differentiate in.
            sigma: The state's noise level.
            mask: Broadcasts to the state.
            terms, of: See `loss_gradient`.

        Raises:
            ValueError: The model can't be differentiated.
        """
        conds = self.guider.conds
        if self._conds is None and self.ladder.takes_gradient:
            self._conds = ordinary(conds)
        self.ladder.choose(component_shapes(conds, call.x.shape), sum(map(len, conds.values())))
        start = StartOfStep(call.model_options, call.x.device, self.ladder.network)
        try:
            self.guider.conds = self._conds
            while self.ladder.takes_gradient:
                result = self._attempt(call, sigma, mask, terms, of)
                if result is not None:
                    return result
                start.restore()
        except RuntimeError as error:
            if "nference tensor" not in str(error) and "does not require grad" not in str(error):
                raise
            raise ValueError(f"GradPaint can't differentiate through this model: {error} {ADVICE}") from error
        finally:
            self.guider.conds = conds
        self._conds = None
        self.ladder.without_backward()
        return call(), None

    def _attempt(
        self, call: ModelCall, sigma: float, mask: Tensor, terms: Terms, of: str
    ) -> tuple[Tensor, LossGradient] | None:
        """None if the step has to be made again."""
        out_of_memory = False
        try:
            return self._gradient(call, sigma, mask, terms, of)
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
        """Whether a way around the error is left to try; it is taken from here on."""
        if "modified by an inplace operation" in str(error) and not self._writes_in_place:
            self._writes_in_place = True
            return True
        if "nference tensor" in str(error) and not self._foreign_tensors:
            self._foreign_tensors = True
            return True
        return False

    def _gradient(
        self, call: ModelCall, sigma: float, mask: Tensor, terms: Terms, of: str
    ) -> tuple[Tensor, LossGradient]:
        with (
            self.around(),
            grad_enabled(self._writes_in_place, self._foreign_tensors),
            differentiable_attention(),
            self.ladder.evaluation(count=not self._writes_in_place) as meter,
        ):
            leaf = call.x.clone().requires_grad_(True)
            options = with_differentiable_attention(call.model_options)
            with self._watch():
                x0_hat = call._replace(x=leaf, timestep=ordinary(call.timestep), model_options=options)()
            if not x0_hat.requires_grad:
                raise ValueError(
                    "GradPaint can't differentiate through this model: a patch or wrapper on it cuts "
                    f"the gradient off. {ADVICE}"
                )
            meter.sample()
            y, mask = ordinary(self.y), ordinary(mask)
            needs_border = any(term.decoded and term.weight for term in terms)
            border, seen = self._seen.at(mask, "denoise_mask_function" not in call.model_options, needs_border)
            gradient = loss_gradient(leaf, x0_hat, y, mask, terms, sigma, border=border, of=of, view=seen)
        return x0_hat.detach(), gradient

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        """The run's first evaluation that comes to its end is looked at from inside."""
        with contextlib.nullcontext() if self._watched else gradient_watch([self.guider.inner_model]):
            yield
        self._watched = True


class _Seen:
    """The border of a mask, and the decoded view of the given latent, kept as long as the mask stays the same."""

    def __init__(
        self, alignment: AlignmentSettings, y: Tensor, decode: Decoder | None, fine_mask: Tensor | None
    ) -> None:
        self._width, self._y, self._decode, self._fine_mask = alignment.border_width, y, decode, fine_mask
        self._last: tuple[Tensor, Tensor | None, View | None] | None = None

    def at(self, mask: Tensor, sharp: bool, needed: bool) -> tuple[Tensor | None, View | None]:
        """(border, view). sharp: the user's own mask is this one, only finer; needed: a term looks at them."""
        if not needed:
            return None, None
        if self._last is None or not torch.equal(self._last[0], mask):
            border = None if self._decode else border_band(mask, self._width)
            self._last = mask, border, None if self._decode is None else self._view(self._decode, mask, sharp)
        return self._last[1:]

    def _view(self, decode: Decoder, mask: Tensor, sharp: bool) -> View:
        """The given latent is decoded once, whatever becomes of the mask."""
        before = None if self._last is None else self._last[2]
        if before is not None:
            return before.with_mask(mask, self._width)
        fitted = self._fitted if sharp and self._fine_mask is not None else None
        return view(decode, ordinary(self._y), mask, self._width, fitted)

    def _fitted(self, image: torch.Size) -> Tensor:
        """The noise mask at the size of a decoded image, as the host fits it to the latent's."""
        return comfy.utils.reshape_mask(ordinary(self._fine_mask), (image[0], 1, *image[2:]))
