"""Results of convolutions inside a checkpointed block, kept so that its second run need not compute them again.

They are the cheapest bytes to save work with: a 3x3 convolution's result saves nine times the work of a linear layer's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd import Function

from .ledger import Held, Ledger


def is_worth_keeping(layer: nn.Module) -> bool:
    """Whether it is a convolution whose graph saves nothing (see autograd/layers.py), so its result can replace it."""
    return "forward" in vars(layer) and hasattr(layer, "kernel_size")


@dataclass
class _Result:
    """saved_before: how many tensors of the block autograd had saved by then."""

    tensor: Tensor
    version: int
    saved_before: int
    held: Held | None = None


class LayerResults:
    """What some layers computed in one call of a block; each layer's results in the order of its calls."""

    def __init__(self) -> None:
        self._results: dict[int, list[_Result | None]] = {}

    def add(self, module: nn.Module, out: Tensor, saved_before: int) -> None:
        self._results.setdefault(id(module), []).append(_Result(out.detach(), out._version, saved_before))

    def close(self, saved: int, ledger: Ledger) -> int:
        """Drop results that were overwritten, or that come after the last of `saved` tensors.

        Returns:
            The bytes of the results that are kept.
        """
        size = 0
        for results in self._results.values():
            for i, result in enumerate(results):
                if result is None or result.saved_before >= saved or result.tensor._version != result.version:
                    results[i] = None
                    continue
                result.held = ledger.hold(result.tensor)
                size += result.held.nbytes
        return size

    def again(self) -> Callable[[nn.Module], Tensor | None]:
        """Return a function that gives a layer's results one after the other; None means it has to be computed."""
        calls = {key: iter(results) for key, results in self._results.items()}

        def next_result(module: nn.Module) -> Tensor | None:
            result = next(calls.get(id(module), iter(())), None)
            return result.tensor if result is not None and result.tensor._version == result.version else None

        return next_result


class KnownResult(Function):
    """Stands for a layer whose result is known, in a graph that is never differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, result: Tensor) -> Tensor:
        return result.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return never_differentiated(grad)


def never_differentiated(_: Any) -> Any:
    raise RuntimeError("GradPaint: the second run of a block is not differentiated")
