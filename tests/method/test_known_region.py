import torch

from gradpaint.method.known_region import combine_image, combine_noisy

MASK = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3)


def test_combine_image():
    x0_hat, y = torch.full((2, 3, 1, 3), 8.0), torch.full((2, 3, 1, 3), 4.0)
    assert combine_image(x0_hat, y, MASK)[1, 2, 0].tolist() == [4.0, 5.0, 8.0]


def test_each_side_is_exact_whatever_the_other_holds():
    y = torch.randn(1, 3, 1, 3)
    broken = torch.tensor([float("nan"), 1.0, 2.0]).expand(1, 3, 1, 3)
    out = combine_image(broken, y, MASK)
    assert torch.equal(out[..., 0], y[..., 0]) and torch.equal(out[..., 2], broken[..., 2])
    out = combine_image(y, torch.full_like(y, float("inf")), MASK)
    assert torch.equal(out[..., 2], y[..., 2])


def test_gradient_flows_through_the_hole_only():
    x0_hat = torch.zeros(1, 3, 1, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(combine_image(x0_hat, torch.ones(1, 3, 1, 3), MASK).sum(), x0_hat)
    assert grad[0, 0, 0].tolist() == [0.0, 0.25, 1.0]


def test_combine_noisy():
    x, y, noise = torch.zeros(1, 1, 1, 3), torch.full((1, 1, 1, 3), 10.0), torch.ones(1, 1, 1, 3)
    assert combine_noisy(x, y, MASK, noise, 0.5, 2.0).flatten().tolist() == [7.0, 0.75 * 7, 0.0]
