"""The gradient of a convolution's input, by whichever of several exact methods is fastest."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

# With a weight this large and an image this small, oneDNN spends most of the backward pass rearranging the weight. A
# matrix product with the weight as stored takes half the time (1280 -> 1280 channels at 8x8: 12 ms against 24; 1920 ->
# 640 at 16x16: 25 against 32; 1280 -> 1280 at 32x32: 217 against 244; beyond these limits it is slower).
LARGE_WEIGHT = 2**23
FEW_POSITIONS = 1024
# With very few positions the product runs along the weight's rows instead (1280 -> 1280 channels at 4x4: 5 ms against
# 10; 2560 -> 1280: 10 against 20; at 16x16 it is slower).
VERY_FEW_POSITIONS = 128


def input_gradient(module: Convolution, weight: Tensor, grad: Tensor, shape: torch.Size) -> Tensor:
    """Compute d/dx <grad, module(x)> for a convolution with zero padding.

    Args:
        module: gives stride, padding, dilation and groups; its padding is not a string.
        weight: the module's weight in grad's dtype and on its device.
        grad: gradient of the output.
        shape: of x, with or without a batch dimension.
    """
    if len(shape) == len(module.kernel_size) + 1:  # a single sample without a batch dimension
        return input_gradient(module, weight, grad[None], torch.Size([1, *shape]))[0]
    if is_pointwise(module, grad):
        return (weight.reshape(len(weight), -1).t() @ grad.flatten(2)).view(shape)
    padding = cast(tuple[int, ...], module.padding)
    if prefers_columns(module, weight, grad):
        matrix, flat = weight.reshape(len(weight), -1), grad.flatten(2)
        few = len(flat) * flat.shape[2] <= VERY_FEW_POSITIONS
        columns = (flat.mT @ matrix).mT if few else matrix.t() @ flat  # (B, C_in * k * k, positions)
        return F.fold(columns, shape[-2:], module.kernel_size, module.dilation, padding, module.stride)
    like_x = grad.new_empty(1).expand(shape)  # only its shape is read: the weight's gradient is not asked for
    no_output_padding = [0] * len(module.kernel_size)
    return torch.ops.aten.convolution_backward(
        grad,
        like_x,
        weight,
        None,
        module.stride,
        padding,
        module.dilation,
        False,
        no_output_padding,
        module.groups,
        (True, False, False),
    )[0]


def is_pointwise(module: Convolution, grad: Tensor) -> bool:
    """Whether the layer is a matrix product at each position and runs faster as one (twice as fast on a CPU)."""
    pointwise = all(size == 1 for size in (*module.kernel_size, *module.stride)) and not any(module.padding)
    return pointwise and module.groups == 1 and grad.device.type == "cpu" and grad.dtype == torch.float32


def prefers_columns(module: Convolution, weight: Tensor, grad: Tensor) -> bool:
    """Whether one matrix product followed by a fold is faster than PyTorch's own backward pass."""
    return (
        grad.device.type == "cpu"
        and grad.dtype == torch.float32
        and grad.ndim == 4
        and module.groups == 1
        and weight.numel() >= LARGE_WEIGHT
        and grad.numel() <= FEW_POSITIONS * len(weight)
    )
