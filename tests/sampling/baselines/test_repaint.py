"""RePaint's path through the noise levels, and the noise that it puts back."""

import pytest
import torch

from gradpaint.sampling.baselines.repaint import repaint_path
from gradpaint.sampling.methods import METHODS


def evaluations(path):
    return sum(there > here for here, there in zip(path, path[1:]))


def test_a_short_path_by_hand():
    assert repaint_path(5, resamplings=2, jump_length=2) == [0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert repaint_path(3, resamplings=3, jump_length=1) == [0, 1, 0, 1, 0, 1, 2, 1, 2, 1, 2, 3]


@pytest.mark.parametrize("steps, resamplings, jump", [(250, 10, 10), (30, 10, 10), (50, 10, 10), (20, 5, 4)])
def test_the_papers_count(steps, resamplings, jump):
    """Where the jump divides the steps each step is made `resamplings` times, but for those that no jump reaches."""
    path = repaint_path(steps, resamplings, jump)
    made = [sum(here == i and there == i + 1 for here, there in zip(path, path[1:])) for i in range(steps)]
    assert made == [1] * (jump - 1) + [resamplings] * (steps - jump) + [1]
    assert evaluations(path) == steps + (resamplings - 1) * (steps - jump)
    assert steps != 250 or evaluations(path) == 2410
    jumps = [here - there for here, there in zip(path, path[1:]) if there < here]
    assert set(jumps) == {jump} and path[0] == 0 and path[-1] == steps


@pytest.mark.parametrize("steps, made", [(1, 1), (2, 2 + 9), (6, 6 + 9 * 5), (10, 10 + 9 * 9), (11, 11 + 9 * 10)])
def test_short_runs_jump_back_to_their_start(steps, made):
    path = repaint_path(steps, 10, 10)
    assert evaluations(path) == made
    assert all(there == 0 and here == steps - 1 for here, there in zip(path, path[1:]) if there < here)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"resamplings": 0}, {"jump_length": 0}, {"jump_length": 1.5}])
def test_out_of_range(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} is {next(iter(bad.values()))}"):
        repaint_path(**{"steps": 10, **bad})


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_every_state_has_its_noise_level(sampler):
    """A model that knows the image: then each state is y plus noise of exactly the level it is evaluated at."""
    y = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    sigmas = torch.tensor([9.0, 5.0, 2.0, 1.0, 0.4, 0.1, 0.0])
    seen = []

    def oracle(x, sigma):
        noise = (x - y) / sigma
        seen.append((float(sigma), noise[..., :32].std().item(), noise[..., 32:].std().item()))
        return y.clone()

    result = METHODS["repaint"].run(
        oracle, y, mask, sigmas=sigmas, sampler=sampler, full_noise=False, resamplings=4, jump_length=3, progress=False
    )
    assert result.evaluations == len(seen) == 6 + 3 * 3
    assert [level for level, *_ in seen] == pytest.approx([record.sigma for record in result.record]) and len(
        {level for level, *_ in seen}
    ) == 6
    for level, hole, known in seen[1:]:  # the first state has no y in the hole
        assert known == pytest.approx(1, abs=0.04), level
        assert hole == pytest.approx(1, abs=0.06), level
