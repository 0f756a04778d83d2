"""The gradient of a convolution's input, by whichever of two exact ways is faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Where the weight is this large and the image this small, oneDNN spends most of its time on rearranging the weight for
# its backward pass; a matrix product with the weight as it lies takes half the time (1280 -> 1280 channels at 8x8: 12
# ms against 24; 1920 -> 640 at 16x16: 25 against 32; 1280 -> 1280 at 32x32: 217 against 244; below that it is slower).
LARGE_WEIGHT = 2**23
FEW_POSITIONS = 1024
# With very few positions the product is taken the other way round, along the weight's rows (1280 -> 1280 channels at
# 4x4: 5 ms against 10; 2560 -> 1280: 10 against 20; at 16x16 it is slower).
VERY_FEW = 128


def input_gradient(module: nn.Module, weight: Tensor, grad: Tensor, shape: torch.Size) -> Tensor:
    """d/dx of <grad, module(x)> for a Conv1d/2d/3d with zero padding; shape: x's, batched or not."""
    if len(shape) == len(module.kernel_size) + 1:  # one sample without a batch dimension
        return input_gradient(module, weight, grad[None], torch.Size([1, *shape]))[0]
    if is_product(module, grad):
        return (weight.reshape(len(weight), -1).t() @ grad.flatten(2)).view(shape)
    if by_columns(module, weight, grad):
        matrix, flat = weight.reshape(len(weight), -1), grad.flatten(2)
        few = len(flat) * flat.shape[2] <= VERY_FEW
        columns = (flat.mT @ matrix).mT if few else matrix.t() @ flat  # (B, C_in * k * k, positions)
        return F.fold(columns, shape[-2:], module.kernel_size, module.dilation, module.padding, module.stride)
    dims = len(module.kernel_size)
    like = grad.new_empty(1).expand(shape)  # only its shape is read: the weight's gradient is not asked for
    return torch.ops.aten.convolution_backward(
        grad,
        like,
        weight,
        None,
        module.stride,
        module.padding,
        module.dilation,
        False,
        [0] * dims,
        module.groups,
        (True, False, False),
    )[0]


def is_product(module: nn.Module, grad: Tensor) -> bool:
    """Whether the layer is a matrix product at each position, which on a CPU takes half the time as such."""
    plain = all(size == 1 for size in (*module.kernel_size, *module.stride)) and not any(module.padding)
    return plain and module.groups == 1 and grad.device.type == "cpu" and grad.dtype == torch.float32


def by_columns(module: nn.Module, weight: Tensor, grad: Tensor) -> bool:
    """Whether the matrix product is the faster way."""
    return (
        grad.device.type == "cpu"
        and grad.dtype == torch.float32
        and grad.ndim == 4
        and module.groups == 1
        and weight.numel() >= LARGE_WEIGHT
        and grad.numel() <= FEW_POSITIONS * len(weight)
    )
