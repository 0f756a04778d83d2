"""Tensors overwritten after a graph has saved them: the gradient is that of the saved values."""

import importlib

import pytest
import torch


@pytest.fixture(scope="module")
def copy_before_write(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.autograd.saved_tensors").copy_before_write


@pytest.mark.parametrize(
    "write",
    [
        lambda a: a.mul_(10),
        lambda a: a[32:].mul_(10),  # starts elsewhere in the same memory
        lambda a: a.view(8, 8).t()[3].zero_(),
        lambda a: a.detach().fill_(0),
        lambda a: torch.mul(a.detach(), 2, out=a.detach()),
        lambda a: a.__setitem__(slice(3, 9), 7.0),
        lambda a: torch._foreach_add_([a.detach()], 1.0),
    ],
)
def test_every_write_is_noticed(write, copy_before_write):
    x = torch.linspace(1, 2, 64, requires_grad=True)
    with copy_before_write():
        a = x * 3
        y = a.square().sum() + a.sigmoid().sum()  # one saves its input, the other its output
        write(a)
        y = y + a.sum() * 0
        (grad,) = torch.autograd.grad(y, x)
    s = (3 * x.detach()).sigmoid()
    assert torch.allclose(grad, 18 * x.detach() + 3 * s * (1 - s))


def test_an_output_that_is_overwritten(copy_before_write):
    x = torch.linspace(1, 2, 64, requires_grad=True)
    with copy_before_write():
        out = x.exp()  # saved itself
        kept = out * 1
        out.detach().zero_()
        (grad,) = torch.autograd.grad(kept.sum(), x)
    assert torch.allclose(grad, x.detach().exp())


def test_memory_that_is_used_again(copy_before_write):
    """Hundreds of tensors of one size, saved, overwritten and dropped, each at an address that others had before."""
    x = torch.linspace(1, 2, 64, dtype=torch.float64, requires_grad=True)
    total, expected = 0, 0
    with copy_before_write():
        for k in range(1, 300):
            a = x * k
            total = total + (a * a).sum()
            a.detach().mul_(2)
            del a
            total = total + (x * k).sin().sum()
            expected = expected + 2 * k * k * x.detach() + k * (k * x.detach()).cos()
        (grad,) = torch.autograd.grad(total, x)
    assert torch.allclose(grad, expected, rtol=1e-10)


def test_nothing_is_copied_or_kept_without_need(copy_before_write, monkeypatch):
    x = torch.randn(64, requires_grad=True)
    clones = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda t, *args, **kwargs: clones.append(1) or clone(t, *args, **kwargs))
    with copy_before_write():
        a = x * 3
        y = a.square()
        y += 1  # not saved
        assert not clones
        a.detach().zero_()
        a.detach().fill_(1)  # its copy is made already
        assert len(clones) == 1
        torch.autograd.grad(y.sum(), x)
