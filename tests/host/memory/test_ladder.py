"""The memory ladder against a small memory: the rung fits, an out-of-memory step is made again, the picture is one."""

import importlib
import logging
import re

import pytest
import torch
import zoo
from live_memory import LiveMemory
from sampling import problem, sample, schedule
from torch.nn import Linear

MIB = 2**20


@pytest.fixture(scope="module")
def modules(pack):
    parts = dict(
        checkpoint="memory.checkpoint",
        device_memory="memory.device_memory",
        guidance="sampling.wrapper",
        memory="memory.ladder",
        sizes="memory.sizes",
    )
    host = {name: importlib.import_module(f"{pack.__name__}.nodes.host.{part}") for name, part in parts.items()}
    return type(
        "Modules",
        (),
        {**host, "settings": pack.gradpaint.method.settings, "MemorySettings": host["memory"].MemorySettings},
    )


@pytest.fixture(scope="module")
def flux():
    """Ten blocks, so that single ones matter."""
    import comfy.supported_models

    with torch.inference_mode():
        config = comfy.supported_models.Flux(
            dict(
                image_model="flux",
                in_channels=16,
                out_channels=16,
                patch_size=2,
                vec_in_dim=768,
                context_in_dim=4096,
                hidden_size=128,
                mlp_ratio=4.0,
                num_heads=2,
                depth=2,
                depth_single_blocks=8,
                axes_dim=[16, 24, 24],
                theta=10000,
                qkv_bias=True,
                guidance_embed=True,
                txt_ids_dims=[],
            )
        )
        config.set_inference_dtype(torch.float32, None)
        return zoo._patcher(config.get_model({}), 0)


@pytest.fixture
def run(modules, monkeypatch):
    """A guided run, every step of it, in a memory of `limit` bytes of which the host says that `free` are left
    (default: the truth). Returns (picture, RunRecord, LiveMemory)."""

    def run(
        model, mode="auto", limit=float("inf"), free=None, allow=False, family="flux", cfg=1.0, callback=None, **changes
    ):
        memory = LiveMemory(limit)
        says = free or (lambda: min(memory.limit, 2**60) - memory.live)
        to_host = modules.device_memory.to_host

        def moved(tensor):
            with memory.elsewhere():
                return to_host(tensor)

        settings = modules.settings.GuidanceSettings(schedule=modules.settings.GuideSchedule.full(), **changes)
        records = []
        guided = modules.guidance.apply_gradpaint(model, settings, records.append, modules.MemorySettings(mode, allow))
        noise, latent, mask = problem(family)
        with monkeypatch.context() as patch:
            patch.setattr(modules.device_memory, "free_memory", lambda model, device: says())
            patch.setattr(modules.device_memory, "to_host", moved)
            try:
                with memory:
                    out = sample(
                        guided,
                        family,
                        "euler_ancestral",
                        schedule(model, "euler_ancestral", 3),
                        noise,
                        latent,
                        mask,
                        cfg=cfg,
                        callback=callback and (lambda *args: callback(memory, *args)),
                    )
            finally:
                assert not any("forward" in vars(module) for module in model.model.modules())
        return out, records[0], memory

    return run


@pytest.fixture(scope="module")
def plain(flux, modules):
    """The picture as it is without any of this."""
    settings = modules.settings.GuidanceSettings(schedule=modules.settings.GuideSchedule.full())
    guided = modules.guidance.apply_gradpaint(flux, settings, memory=modules.MemorySettings("fastest"))
    noise, latent, mask = problem("flux")
    return sample(guided, "flux", "euler_ancestral", schedule(flux, "euler_ancestral", 3), noise, latent, mask)


@pytest.fixture
def peaks(run, flux):
    """The most that lives in a run, by mode."""
    return {mode: run(flux, mode=mode)[2].peak for mode in ("fastest", "low memory", "lowest memory")}


def recomputed(description: str) -> int:
    known = {"plain backward": 0, "all blocks recomputed": 10}
    return known[description] if description in known else int(re.match(r"(\d+) of 10 blocks", description)[1])


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
        # What is counted is a part of all that lives; most of it in plain backward.
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
    lies = iter([2**20, 2**20, *[2 * MIB] * 20])  # the real memory is large, but the host says it is not
    out, record, memory = run(flux, free=lambda: next(lies))
    assert record.memory.rungs[1:] == ["all blocks recomputed, their inputs in host memory"] * 2
    assert torch.equal(out, plain)


def block(modules, name, saved, inputs):
    one = modules.checkpoint.Block(name, torch.nn.Identity())
    one.saved = one.largest = saved
    one.inputs, one.calls = inputs, 1
    return one


def test_plan(modules):
    plan = modules.sizes.blocks_to_keep
    blocks = [block(modules, "a", 100, 10), block(modules, "b", 60, 10), block(modules, "c", 300, 10)]
    names = lambda budget, **more: (lambda found: found and [b.name for b in found])(
        plan(blocks, **{"rest": 50, "transient": 0, **more}, budget=budget)
    )
    smallest = 50 + 300 + 300 + 30  # rest, room to work in, one block's recomputation, inputs
    assert names(smallest - 1) is None and names(smallest) == []
    assert names(smallest + 50) == ["b"] and names(smallest + 140) == ["b", "a"] and names(10_000) == ["b", "a", "c"]
    assert names(smallest + 50, transient=350) == [] and names(smallest + 50, rest=101) is None


def test_a_model_without_blocks_takes_the_plain_way_or_none(modules, caplog):
    for mode in ("auto", "low memory"):
        ladder = modules.memory.MemoryLadder(modules.MemorySettings(mode), torch.nn.Identity(), torch.device("cpu"))
        with ladder.installed([Linear(3, 3)]), caplog.at_level(logging.INFO):
            ladder.choose([torch.Size((1, 4, 8, 8))], 1)
            assert ladder.describe() == "plain backward" and "no blocks that could be recomputed" in caplog.text
            with pytest.raises(modules.memory.OutOfGuidanceMemory, match="plain backward"):
                ladder.out_of_memory()


# ---- out of memory


def test_out_of_memory_makes_the_step_again(run, flux, plain, caplog):
    # The host says there is plenty; there is not.
    out, record, memory = run(flux, limit=3.5 * MIB, free=lambda: 2**60)
    assert memory.failures == record.memory.repeats >= 1
    assert recomputed(record.memory.rungs[0]) == 10 and recomputed(record.memory.rungs[-1]) > 0
    assert torch.equal(out, plain)
    assert len(record.total) == len(record.grad_rms) == record.backwards == record.evaluations == 3
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
    assert record.guided_sigmas == expected.guided_sigmas and len(record.total) == len(record.guided_sigmas) > 0
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
    def lives(**options):
        found = []
        *_, memory = run(flux, callback=lambda memory, *_: found.append(memory.live), **options)
        return found, memory.failures

    without, none = lives(mode="fastest")
    found, failures = lives(limit=3.5 * MIB, free=lambda: 2**60)
    assert none == 0 and failures > 0 and found == without


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


def test_a_real_failed_allocation_is_recognised(modules):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert modules.device_memory.is_out_of_memory(caught.value)


# ---- around it


def test_unguided_steps_keep_nothing(run, flux, modules, monkeypatch):
    calls = []
    monkeypatch.setattr(modules.checkpoint.Call, "run", lambda *args: calls.append(args))
    inpainted, record, _ = run(flux, mode="low memory", alpha=0.0)
    assert calls == [] and record.memory.rungs == []


def test_the_host_is_asked_for_room(flux, modules, monkeypatch):
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
