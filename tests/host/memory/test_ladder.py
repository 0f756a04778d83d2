"""The memory ladder: each rung gives the same picture, and the chosen one fits into the memory there is."""

import logging

import pytest
import torch
import zoo
from ladder_runs import MIB, recomputed
from sampling import problem, sample, schedule
from torch.nn import Linear

# ---- every rung


def test_modes_give_one_picture_with_less_and_less_memory(run, flux, plain):
    runs = [run(flux, mode=mode) for mode in ("fastest", "low memory", "lowest memory")]
    assert all(torch.equal(out, plain) for out, _, _ in runs)
    assert [set(record.memory.rungs) for _, record, _ in runs] == [
        {"plain backward"},
        {"all blocks recomputed"},
        {"all blocks recomputed, their inputs in host memory"},
    ]
    peaks = [memory.peak for _, _, memory in runs]
    assert peaks[0] > 2.5 * peaks[1] and peaks[1] > 1.1 * peaks[2]
    for (_, record, _), peak in zip(runs, peaks):
        counted = record.memory
        assert counted.repeats == 0 and counted.peak_kind == "saved for backward, counted"
        # Only a share of the live memory is counted; with plain backward it is most of it.
        assert 0.25 * peak < counted.peak_bytes < peak
    assert runs[0][1].memory.peak_bytes > 0.7 * peaks[0]


@pytest.mark.parametrize("family", ["sd15", "guided_diffusion"])
def test_modes_on_unets_with_cfg(run, pack, tmp_path, family):
    model = zoo.build(family, pack, tmp_path)
    runs = [run(model, mode=mode, family=family, cfg=4.0) for mode in ("fastest", "low memory", "lowest memory")]
    peaks = [memory.peak for _, _, memory in runs]
    assert all(torch.equal(out, runs[0][0]) for out, _, _ in runs) and peaks[0] > peaks[1] > peaks[2]


# ---- the choice


@pytest.mark.parametrize("limit", [3, 4, 5, 6, 8])
def test_chosen_rung_fits(run, flux, plain, limit):
    out, record, memory = run(flux, limit=limit * MIB)
    assert memory.failures == 0 and memory.peak <= limit * MIB and record.memory.repeats == 0
    assert torch.equal(out, plain)
    first, *others = record.memory.rungs
    assert first == "all blocks recomputed" and len(others) == 2 and len(set(others)) == 1  # measured, then settled


def test_more_memory_fewer_recomputed_blocks(run, flux):
    counts = [recomputed(run(flux, limit=limit * MIB)[1].memory.rungs[-1]) for limit in (2.6, 4, 5, 6, 8)]
    assert counts[0] == 10 and counts[-1] == 0 and counts == sorted(counts, reverse=True) and len(set(counts)) == 5


def test_with_plenty_nothing_is_recomputed_from_the_start(run, flux, caplog):
    with caplog.at_level(logging.INFO):
        _, record, _ = run(flux)
    assert record.memory.rungs == ["plain backward"] * 3
    assert "GradPaint: memory: plain backward" in caplog.text and "a plain backward pass may keep" in caplog.text


def test_too_little_for_what_was_measured_goes_to_host_memory(run, flux, plain):
    lies = iter([2**20, 2**20, *[2 * MIB] * 20])  # the memory is large, but the host reports little
    out, record, memory = run(flux, free=lambda: next(lies))
    assert record.memory.rungs[1:] == ["all blocks recomputed, their inputs in host memory"] * 2
    assert torch.equal(out, plain)


def block(modules, name, saved, inputs):
    one = modules.checkpoint.Block(name, torch.nn.Identity())
    one.saved = one.largest = saved
    one.inputs, one.calls = inputs, 1
    return one


def test_blocks_to_keep(modules):
    blocks_to_keep = modules.sizes.blocks_to_keep
    blocks = [block(modules, "a", 100, 10), block(modules, "b", 60, 10), block(modules, "c", 300, 10)]

    def names(budget, **changes):
        kept = blocks_to_keep(blocks, **{"rest": 50, "transient": 0, **changes}, budget=budget)
        return None if kept is None else [block.name for block in kept]

    smallest = 50 + 300 + 300 + 30  # rest, room to work in, one block's recomputation, inputs
    assert names(smallest - 1) is None and names(smallest) == []
    assert names(smallest + 50) == ["b"] and names(smallest + 140) == ["b", "a"] and names(10_000) == ["b", "a", "c"]
    assert names(smallest + 50, transient=350) == [] and names(smallest + 50, rest=101) is None


def test_a_model_without_blocks_runs_plain_backward_or_fails(modules, caplog):
    for mode in ("auto", "low memory"):
        ladder = modules.memory.MemoryLadder(modules.MemorySettings(mode), torch.nn.Identity(), torch.device("cpu"))
        with ladder.installed([Linear(3, 3)]), caplog.at_level(logging.INFO):
            ladder.choose([torch.Size((1, 4, 8, 8))], 1)
            assert ladder.describe() == "plain backward" and "no blocks that could be recomputed" in caplog.text
            with pytest.raises(modules.memory.OutOfGuidanceMemory, match="plain backward"):
                ladder.out_of_memory()


# ---- the rest of the run


def test_unguided_steps_keep_nothing(run, flux, modules, monkeypatch):
    calls = []
    monkeypatch.setattr(modules.checkpoint.Call, "run", lambda *args: calls.append(args))
    inpainted, record, _ = run(flux, mode="low memory", alpha=0.0)
    assert calls == [] and record.memory.rungs == []


def test_the_host_leaves_room(flux, modules, monkeypatch):
    import comfy.sampler_helpers

    shapes = []
    estimate = comfy.sampler_helpers.estimate_memory
    monkeypatch.setattr(
        comfy.sampler_helpers,
        "estimate_memory",
        lambda model, shape, conds: shapes.append(list(shape)) or estimate(model, shape, conds),
    )
    noise, latent, mask = problem("flux")
    for changes in ({}, {"gradient": "x0"}, {"alpha": 0.0}):
        guided = modules.guidance.apply_gradpaint(flux, modules.settings.GuidanceSettings(**changes))
        sample(guided, "flux", "euler", schedule(flux, "euler", 1), noise, latent, mask)
    assert shapes == [[modules.device_memory.ROOM_FACTOR, 16, 16, 16], [1, 16, 16, 16], [1, 16, 16, 16]]
    assert not flux.wrappers.get("prepare_sampling")


def test_settings_name_the_bad_value(modules):
    with pytest.raises(ValueError, match="'tiny'.*'auto', 'fastest', 'low memory', 'lowest memory'"):
        modules.MemorySettings(mode="tiny")
