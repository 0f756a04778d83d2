"""The input gradient of convolutions: every method against PyTorch's own."""

import importlib

import pytest
import torch
from torch import nn
from torch.nn import Conv1d, Conv2d, Conv3d

LAYERS = [
    (Conv2d(6, 4, 3, padding=1), (2, 6, 5, 7)),
    (Conv2d(6, 4, 3, stride=2, padding=1), (2, 6, 8, 6)),
    (Conv2d(6, 4, 3, stride=2, padding=1), (1, 6, 7, 7)),
    (Conv2d(6, 4, (3, 1), padding=(2, 0), dilation=(2, 1)), (1, 6, 6, 6)),
    (Conv2d(6, 4, 1), (3, 6, 4, 4)),
    (Conv2d(6, 4, 1, stride=2), (1, 6, 4, 4)),
    (Conv3d(6, 4, 1), (2, 6, 3, 4, 5)),
    (Conv2d(6, 4, 3, padding=1, groups=2), (2, 6, 5, 5)),
    (Conv2d(6, 4, 3, padding=1), (6, 5, 5)),
    (Conv1d(6, 4, 3, padding=1), (2, 6, 9)),
    (Conv3d(6, 4, 3, padding=1), (1, 6, 3, 4, 5)),
]


@pytest.fixture(scope="module")
def convolution(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.autograd.convolution")


@pytest.mark.parametrize("large, very_few", [(2**23, 128), (0, 128), (0, 0)])
@pytest.mark.parametrize("layer, shape", LAYERS)
def test_input_gradient(convolution, monkeypatch, layer, shape, large, very_few):
    monkeypatch.setattr(convolution, "LARGE_WEIGHT", large)
    monkeypatch.setattr(convolution, "VERY_FEW_POSITIONS", very_few)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = layer(x)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(out, x, grad)
    grad_x = convolution.input_gradient(layer, layer.weight.detach(), grad, x.shape)
    assert grad_x.shape == x.shape and torch.allclose(grad_x, expected, atol=1e-5)
    fits = isinstance(layer, nn.Conv2d) and layer.groups == 1 and x.ndim == 4
    assert convolution.prefers_columns(layer, layer.weight, grad) is (large == 0 and fits)


def test_when_the_matrix_product_is_used(convolution):
    layer = Conv2d(1280, 1280, 3, padding=1, device="meta")
    weight = torch.empty(1).expand(layer.weight.shape)
    grad = lambda size, dtype=torch.float32: torch.empty(1, dtype=dtype).expand(1, 1280, size, size)
    assert convolution.prefers_columns(layer, weight, grad(8)) and convolution.prefers_columns(layer, weight, grad(32))
    assert not convolution.prefers_columns(layer, weight, grad(33))
    assert not convolution.prefers_columns(layer, weight, grad(8, torch.bfloat16))
    assert not convolution.prefers_columns(Conv2d(320, 320, 3), torch.empty(1).expand(320, 320, 3, 3), grad(8))
