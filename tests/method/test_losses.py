import pytest
import torch
from torch.autograd import gradcheck

from gradpaint.method.losses import (
    border_band,
    check_shapes,
    edge_match_loss,
    image_gradients,
    masked_mse,
    normalized_gradients,
)

HALF = torch.tensor([[0.0, 0, 1, 1]] * 4, dtype=torch.float64).reshape(1, 1, 4, 4)  # right half is the hole


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class TestMaskedMse:
    def test_exact(self):
        x0_hat = torch.zeros(2, 3, 4, 4)
        y = torch.ones(2, 3, 4, 4)
        y[1] = 2
        y[..., 2:] = 100  # under the hole: ignored
        assert masked_mse(x0_hat, y, HALF.float()).tolist() == [1.0, 4.0]

    def test_grey_mask_weights(self):
        mask = torch.tensor([[[[0.0, 0.5]]]])
        y = torch.tensor([[[[1.0, 3.0]]]])
        assert masked_mse(torch.zeros_like(y), y, mask).item() == pytest.approx((1 * 1 + 0.5 * 9) / 1.5)

    def test_nothing_known_is_zero(self):
        assert masked_mse(random(1, 3, 4, 4), random(1, 3, 4, 4, seed=1), torch.ones(1, 1, 4, 4)).tolist() == [0.0]

    def test_gradcheck(self):
        y = random(2, 3, 4, 4, seed=1)
        assert gradcheck(lambda x: masked_mse(x, y, HALF), random(2, 3, 4, 4).requires_grad_())


class TestImageGradients:
    def test_exact(self):
        x = torch.tensor([[1.0, 4.0], [2.0, 0.0]]).reshape(1, 1, 2, 2)
        dx, dy = image_gradients(x)
        assert dx.flatten().tolist() == [3.0, 0.0, -2.0, 0.0]
        assert dy.flatten().tolist() == [1.0, -4.0, 0.0, 0.0]

    @pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 4, 3, 5, 6), (1, 1, 1, 1)])
    def test_shapes(self, shape):
        for g in image_gradients(random(*shape)):
            assert g.shape == shape

    def test_gradcheck(self):
        assert gradcheck(lambda x: image_gradients(x), random(1, 2, 3, 4).requires_grad_())


class TestNormalisedGradients:
    def test_unit_length_or_zero(self):
        x = random(2, 3, 6, 6)
        x[:, :, :3] = 0.25  # flat part
        dx, dy = normalized_gradients(x)
        length = (dx**2 + dy**2).sqrt()
        raw = sum(g**2 for g in image_gradients(x)).sqrt()
        assert torch.allclose(length[raw > 0], torch.ones(()).double(), atol=1e-12)
        assert (length[raw == 0] == 0).all() and (raw == 0).any()

    def test_direction(self):
        x = torch.tensor([[0.0, 3.0], [4.0, 0.0]]).reshape(1, 1, 2, 2)
        dx, dy = normalized_gradients(x)
        assert (dx[0, 0, 0, 0].item(), dy[0, 0, 0, 0].item()) == pytest.approx((0.6, 0.8))

    def test_scale_invariant(self):
        x = random(1, 1, 5, 5)
        for a, b in zip(normalized_gradients(x), normalized_gradients(1e-9 * x)):
            assert torch.allclose(a, b, atol=1e-9)

    @pytest.mark.parametrize("softness", [0.0, 0.1])
    def test_flat_image_has_finite_zero_derivative(self, softness):
        x = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(sum((g**2).sum() for g in normalized_gradients(x, softness)), x)
        assert grad.abs().max() == 0

    def test_softness(self):
        x = torch.tensor([[0.0, 3.0], [4.0, 0.0]]).reshape(1, 1, 2, 2)
        dx, _ = normalized_gradients(x, softness=12.0)
        assert dx[0, 0, 0, 0].item() == pytest.approx(3 / 13)

    @pytest.mark.parametrize("softness", [0.0, 0.3])
    def test_gradcheck(self, softness):
        assert gradcheck(lambda x: normalized_gradients(x, softness), random(1, 2, 4, 3).requires_grad_())


class TestBorderBand:
    @pytest.mark.parametrize("width, expected", [(1, [0, 1, 1, 0, 0, 0]), (2, [1, 1, 1, 1, 0, 0])])
    def test_exact(self, width, expected):
        mask = torch.tensor([[1.0, 1, 0, 0, 0, 0]] * 6).reshape(1, 1, 6, 6)
        assert border_band(mask, width)[0, 0, 3].tolist() == expected

    def test_image_edge_is_no_border(self):
        assert border_band(torch.ones(1, 1, 5, 5)).sum() == 0

    def test_soft_mask(self):
        mask = torch.tensor([[0.0, 0.25, 1.0]]).reshape(1, 1, 1, 3)
        assert border_band(mask).flatten().tolist() == [0.25, 1.0, 0.75]

    def test_video(self):
        mask = torch.zeros(1, 1, 2, 6, 6)
        mask[:, :, 1, :, 3:] = 1
        band = border_band(mask)
        assert band.shape == mask.shape and band[:, :, 0].sum() == 0
        assert torch.equal(band[:, :, 1], border_band(mask[:, :, 1]))


class TestAlignmentLoss:
    @pytest.mark.parametrize("softness", [0.0, 0.5])
    def test_zero_where_the_known_part_agrees(self, softness):
        y = random(2, 3, 8, 8)
        x0_hat = y.clone()
        x0_hat[..., 4:] = random(2, 3, 8, 4, seed=3)
        mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
        mask[..., 4:] = 1
        assert edge_match_loss(x0_hat, y, mask, softness=softness).abs().max() == 0

    def test_exact_step_across_the_border(self):
        # x0_hat is flat; the known half of the combined image is darker: one edge, at the last known column.
        x0_hat = torch.zeros(1, 1, 4, 4)
        y = torch.full((1, 1, 4, 4), -1.0)
        # Combined gradient there: (1, 0), normalised (1, 0); x0_hat's: 0. Half of the band (columns 1, 2) has the edge.
        assert edge_match_loss(x0_hat, y, HALF.float()).item() == pytest.approx(0.5)
        # With softness s: 1 / sqrt(1 + s^2), squared.
        assert edge_match_loss(x0_hat, y, HALF.float(), softness=2.0).item() == pytest.approx(0.5 * 1 / 5)

    def test_mean_over_channels(self):
        x0_hat, y = random(1, 1, 6, 6), random(1, 1, 6, 6, seed=1)
        mask = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
        mask[..., 3:] = 1
        one = edge_match_loss(x0_hat, y, mask)
        three = edge_match_loss(x0_hat.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1), mask)
        assert torch.allclose(one, three)

    @pytest.mark.parametrize("softness", [0.0, 0.5])
    def test_gradcheck(self, softness):
        y = random(2, 3, 4, 4, seed=1)
        assert gradcheck(lambda x: edge_match_loss(x, y, HALF, softness=softness), random(2, 3, 4, 4).requires_grad_())


class TestErrors:
    def test_y(self):
        with pytest.raises(ValueError, match=r"y has shape \(1, 3, 4, 5\).*\(1, 3, 4, 4\)"):
            check_shapes(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5), torch.zeros(1, 1, 4, 4))

    @pytest.mark.parametrize("shape", [(1, 1, 4, 5), (4, 4), (3, 1, 4, 4), (1, 1, 1, 1), (1, 2, 4, 4)])
    def test_mask(self, shape):
        with pytest.raises(ValueError, match="mask has shape"):
            check_shapes(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(shape))

    def test_dimensions(self):
        with pytest.raises(ValueError, match="x0_hat has shape"):
            check_shapes(torch.zeros(4, 4), torch.zeros(4, 4), torch.zeros(4, 4))
