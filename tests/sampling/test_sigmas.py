import pytest
import torch

from gradpaint.sampling.sigmas import spaced_sigmas


def test_spaced_sigmas_are_the_table_when_steps_is_its_length():
    table = torch.linspace(-3, 2, 50, dtype=torch.float64).exp()
    sigmas = spaced_sigmas(table, 50)
    assert torch.allclose(sigmas[:-1], table.flip(0).float()) and sigmas[-1] == 0


def test_spaced_sigmas_interpolate_in_log_sigma():
    sigmas = spaced_sigmas(torch.tensor([0.01, 1.0]), 3)
    assert sigmas.tolist() == pytest.approx([1.0, 0.1, 0.01, 0.0])


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ends(steps):
    sigmas = spaced_sigmas(torch.tensor([0.5, 1.0, 4.0]), steps)
    assert len(sigmas) == steps + 1 and sigmas[0] == 4.0 and sigmas[-1] == 0 and bool((sigmas.diff() < 0).all())


def test_denoise_takes_the_tail():
    table = torch.linspace(0.1, 5, 100)
    assert torch.allclose(spaced_sigmas(table, 5, denoise=0.5), spaced_sigmas(table, 10)[-6:])


@pytest.mark.parametrize("table", [torch.tensor([1.0]), torch.tensor([2.0, 1.0]), torch.ones(2, 2)])
def test_bad_table(table):
    with pytest.raises(ValueError, match="table has shape"):
        spaced_sigmas(table, 3)


@pytest.mark.parametrize("steps", [0, 2.5, -1])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match="steps is"):
        spaced_sigmas(torch.tensor([1.0, 2.0]), steps)
