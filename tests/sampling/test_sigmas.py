import pytest
import torch

from gradpaint.method.plan import guided_steps, kept_steps
from gradpaint.method.settings import GuideSchedule
from gradpaint.sampling.sigmas import spaced_sigmas


@pytest.mark.parametrize(
    "schedule, total, expected",
    [
        (GuideSchedule.fast(), 30, range(15)),
        (GuideSchedule.paper(), 100, range(45)),
        (GuideSchedule(), 30, range(13)),
        (GuideSchedule(), 4, range(2)),
        (GuideSchedule.thorough(), 30, range(22)),
        (GuideSchedule(fraction=0.29), 100, range(29)),
        (GuideSchedule.full(), 7, range(7)),
        (GuideSchedule(fraction=0.0), 7, ()),
        (GuideSchedule(fraction=0.01), 7, (0,)),
        (GuideSchedule(fraction=0.5, every=3), 20, (0, 3, 6, 9)),
        (GuideSchedule(mode="steps", steps=4), 20, range(4)),
        (GuideSchedule(mode="steps", steps=40), 5, range(5)),
        (GuideSchedule(mode="steps", steps=0), 5, ()),
        (GuideSchedule.fast(), 0, ()),
    ],
)
def test_guided_steps(schedule, total, expected):
    guided = guided_steps(schedule, total)
    assert len(guided) == total and [i for i, on in enumerate(guided) if on] == list(expected)


@pytest.mark.parametrize(
    "schedule, total, expected",
    [
        (GuideSchedule(fraction=0.5, every=3, between="keep"), 20, (1, 2, 4, 5, 7, 8)),
        (GuideSchedule(mode="steps", steps=4, every=2, between="keep"), 20, (1, 3)),
        (GuideSchedule(fraction=0.5, every=3), 20, ()),
        (GuideSchedule(fraction=0.5, between="keep"), 20, ()),
        (GuideSchedule(fraction=0.0, every=2, between="keep"), 20, ()),
    ],
)
def test_kept_steps(schedule, total, expected):
    kept = kept_steps(schedule, total)
    assert len(kept) == total and [i for i, on in enumerate(kept) if on] == list(expected)


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
