"""Out of memory in a guided step: it is repeated one rung lower, and the picture stays the same."""

import logging

import pytest
import torch
from ladder_runs import MIB, recomputed


def test_out_of_memory_repeats_the_step(run, flux, plain, caplog):
    # The host reports plenty of memory, but there is little.
    out, record, memory = run(flux, limit=3.5 * MIB, free=lambda: 2**60)
    assert memory.failures == record.memory.repeats >= 1
    assert recomputed(record.memory.rungs[0]) == 10 and recomputed(record.memory.rungs[-1]) > 0
    assert torch.equal(out, plain)
    assert (
        len(record.losses("total"))
        == len([s.gradient_rms for s in record.guided])
        == record.backwards
        == record.evaluations
        == 3
    )
    lines = [r.getMessage() for r in caplog.records if "out of memory" in r.getMessage()]
    assert (
        lines[0]
        == ("GradPaint: out of memory in a guided step (plain backward); repeating it with: all blocks recomputed")
        and len(lines) == record.memory.repeats
    )


def test_memory_that_shrinks_during_the_run(run, flux, plain, peaks):
    limits = [
        (peaks["fastest"] + peaks["low memory"]) / 2,
        (peaks["low memory"] + peaks["lowest memory"]) / 2,
        float("inf"),
    ]

    def shrink(memory, i, *_):
        memory.limit = limits[i]

    out, record, memory = run(flux, limit=8 * MIB, callback=shrink)
    rungs = record.memory.rungs
    assert rungs[0] == "all blocks recomputed" and 0 < recomputed(rungs[1]) <= 10 and "host memory" in rungs[2]
    assert record.memory.repeats == memory.failures >= 2 and torch.equal(out, plain)


def test_first_step_too_large_for_all_blocks(run, flux, plain, peaks):
    out, record, memory = run(flux, limit=(peaks["low memory"] + peaks["lowest memory"]) / 2)
    assert record.memory.rungs == ["all blocks recomputed, their inputs in host memory"] * 3
    assert record.memory.repeats == memory.failures == 1 and torch.equal(out, plain)


def test_without_gradient_if_allowed(run, flux, caplog, peaks):
    stand_in, expected, _ = run(flux, gradient="x0")
    out, record, memory = run(flux, limit=0.9 * peaks["lowest memory"], allow=True)
    assert torch.equal(out, stand_in) and memory.failures == 2
    assert record.backwards == 0 and record.evaluations == 3
    assert [s.sigma for s in record.guided] == [s.sigma for s in expected.guided] and len(
        record.losses("total")
    ) == len(record.guided) > 0
    assert record.memory.peak_bytes is None and record.memory.rungs == ["no backward pass"] * 3
    assert any(r.levelno >= logging.WARNING and "WITHOUT the model's" in r.getMessage() for r in caplog.records)


def test_without_gradient_only_if_allowed(run, flux, modules):
    with pytest.raises(modules.memory.OutOfGuidanceMemory, match="smaller image.*GradPaint Memory") as caught:
        run(flux, limit=1.5 * MIB)
    assert caught.value.__cause__ is None and caught.value.__context__ is None  # nothing that holds a graph


def test_fastest_never_recomputes(run, flux, modules):
    with pytest.raises(modules.memory.OutOfGuidanceMemory, match="plain backward"):
        run(flux, mode="fastest", limit=4 * MIB)
    _, record, memory = run(flux, mode="fastest", limit=4 * MIB, allow=True)
    assert memory.failures == 1 and record.backwards == 0


def test_a_failed_step_leaves_nothing_in_memory(run, flux):
    def live_after_steps(**options):
        live = []
        *_, memory = run(flux, callback=lambda memory, *_: live.append(memory.live), **options)
        return live, memory.failures

    expected, no_failures = live_after_steps(mode="fastest")
    live, failures = live_after_steps(limit=3.5 * MIB, free=lambda: 2**60)
    assert no_failures == 0 and failures > 0 and live == expected


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                "to allocate 400 bytes. Error code 12 (Cannot allocate memory)"
            ),
            True,
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried to "
                "allocate 400 bytes."
            ),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_errors(modules, error, expected):
    assert modules.device_memory.is_out_of_memory(error) is expected


def test_free_memory_is_the_hosts(modules, flux):
    import psutil

    flux.model.current_patcher = flux
    free = modules.device_memory.free_memory(flux.model, torch.device("cpu"))
    assert 0.5 < free / psutil.virtual_memory().available < 2
    assert modules.device_memory.free_memory(object(), torch.device("cpu")) > 0


def test_a_real_failed_allocation_is_recognized(modules):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert modules.device_memory.is_out_of_memory(caught.value)
