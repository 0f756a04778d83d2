"""Builds layers from any namespace that has those of `torch.nn`, with half precision only where it is enough."""

from __future__ import annotations

from typing import Callable, Protocol

import torch
from torch import nn

from .config import NORM_GROUPS


class Operations(Protocol):
    """A namespace of layer classes with the signatures of `torch.nn`."""

    @property
    def Conv1d(self) -> Callable[..., nn.Module]: ...

    @property
    def Conv2d(self) -> Callable[..., nn.Module]: ...

    @property
    def Linear(self) -> Callable[..., nn.Module]: ...

    @property
    def GroupNorm(self) -> Callable[..., nn.Module]: ...

    @property
    def LayerNorm(self) -> Callable[..., nn.Module]: ...

    @property
    def Embedding(self) -> Callable[..., nn.Module]: ...


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type for computations that half precision is too coarse for: at least float32."""
    return torch.promote_types(dtype, torch.float32)


class Layers:
    """Builds layers from an `operations` namespace: torso convolutions in `dtype`, others in at least float32."""

    def __init__(self, operations: Operations, device: torch.device | str | None, dtype: torch.dtype | None):
        self.ops, self.device, self.dtype = operations, device, dtype
        self.wide = None if dtype is None else wide_type(dtype)

    def conv(
        self,
        cin: int,
        cout: int,
        kernel: int,
        dims: int = 2,
        stride: int = 1,
        wide: bool = False,
        padding: int | None = None,
    ) -> nn.Module:
        layer = self.ops.Conv1d if dims == 1 else self.ops.Conv2d
        dtype = self.wide if wide else self.dtype
        padding = kernel // 2 if padding is None else padding
        return layer(cin, cout, kernel, stride=stride, padding=padding, device=self.device, dtype=dtype)

    def zero_conv(self, cin: int, cout: int, kernel: int, dims: int = 2, wide: bool = False) -> nn.Module:
        layer = self.conv(cin, cout, kernel, dims, wide=wide)
        # Training starts from the identity. The host fills its layers from a file; they need no initial values.
        if self.ops is nn:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        return layer

    def linear(self, cin: int, cout: int, bias: bool = True, wide: bool = True) -> nn.Module:
        return self.ops.Linear(cin, cout, bias=bias, device=self.device, dtype=self.wide if wide else self.dtype)

    def embedding(self, count: int, dim: int) -> nn.Module:
        return self.ops.Embedding(count, dim, device=self.device, dtype=self.wide)

    def norm(self, channels: int, eps: float = 1e-5) -> nn.Module:
        return self.ops.GroupNorm(NORM_GROUPS, channels, eps=eps, device=self.device, dtype=self.wide)

    def layer_norm(self, width: int) -> nn.Module:
        return self.ops.LayerNorm(width, device=self.device, dtype=self.wide)
