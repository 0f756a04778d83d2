"""Eq. 8 as a sum of terms."""

import pytest
import torch
from torch.autograd import gradcheck

from gradpaint.method.losses import edge_match_loss, masked_mse
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings
from gradpaint.method.terms import loss_terms, total_loss, without_decoded

HALF = torch.tensor([[0.0, 0, 1, 1]] * 4, dtype=torch.float64).reshape(1, 1, 4, 4)  # right half is the hole


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def total(x0_hat, y, mask, lambda_al, softness=0.0, lambda_mse=1.0):
    alignment = AlignmentSettings(lambda_al=lambda_al, softness=softness)
    return total_loss(x0_hat, y, mask, loss_terms(GuidanceSettings(alignment=alignment, lambda_mse=lambda_mse)))


def test_is_the_weighted_sum():
    x0_hat, y = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    losses = total(x0_hat, y, HALF, 7.0, softness=0.5)
    assert torch.allclose(losses["mse"], masked_mse(x0_hat, y, HALF))
    assert torch.allclose(losses["alignment"], edge_match_loss(x0_hat, y, HALF, softness=0.5))
    assert torch.allclose(losses["total"], losses["mse"] + 7 * losses["alignment"])
    weighted = total(x0_hat, y, HALF, 7.0, softness=0.5, lambda_mse=0.25)
    assert torch.allclose(weighted["total"], 0.25 * losses["mse"] + 7 * losses["alignment"])


def test_without_weight_a_term_adds_nothing_but_the_mse_is_still_told():
    x0_hat, y = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    alone = total(x0_hat, y, HALF, 0.0)
    assert torch.equal(alone["total"], alone["mse"]) and alone["alignment"].tolist() == [0, 0]
    alignment = total(x0_hat, y, HALF, 2.0, lambda_mse=0.0)
    assert torch.allclose(alignment["total"], 2 * alignment["alignment"]) and torch.equal(
        alignment["mse"], alone["mse"]
    )
    assert total(x0_hat, y, HALF, 0.0, lambda_mse=0.0)["total"].tolist() == [0, 0]


def test_what_looks_at_decoded_images_can_be_switched_off():
    mse, alignment = without_decoded(loss_terms(GuidanceSettings()))
    assert mse.weight == 1 and alignment.weight == 0


def test_per_sample():
    x0_hat, y = random(3, 3, 4, 4), random(3, 3, 4, 4, seed=1)
    together = total(x0_hat, y, HALF, 2.0)["total"]
    each = torch.cat([total(x0_hat[i : i + 1], y[i : i + 1], HALF, 2.0)["total"] for i in range(3)])
    assert torch.allclose(together, each)


@pytest.mark.parametrize("lambda_al", [0.0, 5.0])
def test_gradcheck(lambda_al):
    y = random(2, 3, 4, 4, seed=1)
    assert gradcheck(lambda x: total(x, y, HALF, lambda_al, softness=0.2)["total"], random(2, 3, 4, 4).requires_grad_())


def test_memory_layout_does_not_matter():
    x0_hat, y = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    a = total(x0_hat, y, HALF, 2.0)["total"]
    b = total(x0_hat.contiguous(memory_format=torch.channels_last), y, HALF, 2.0)["total"]
    assert torch.allclose(a, b)


def test_matches_finite_differences_on_a_large_estimate():
    # First steps of a run: x0_hat is hundreds of units away.
    x0_hat, y = 300 * random(1, 3, 4, 4), random(1, 3, 4, 4, seed=1)
    assert gradcheck(lambda x: total(x, y, HALF, 1.0)["total"], x0_hat.requires_grad_(), atol=1e-4, rtol=1e-4)
