"""The benchmarks run on tiny models and fill every cell."""

import re
import sys

import pytest
from in_host import PACK_ROOT


@pytest.fixture(scope="module")
def benchmarks(pack):
    """The scripts' modules; their folder is on sys.path while they are imported, as when they are run."""
    sys.path.insert(0, str(PACK_ROOT / "benchmarks"))
    try:
        import bench_host
        import families
        import full_size
        import speed
        import timing
    finally:
        sys.path.remove(str(PACK_ROOT / "benchmarks"))

    class Modules:
        pass

    Modules.families, Modules.speed, Modules.timing, Modules.full_size = families, speed, timing, full_size
    Modules.pack = bench_host.modules(pack)
    return Modules


def cells(text: str, title: str) -> list[dict]:
    """The rows of the Markdown table whose first column is `title`, of all of them."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    rows, header = [], []
    for line in lines:
        if line[0] == title:
            header = line
        elif header and not set(line[0]) <= {"-"}:
            rows.append(dict(zip(header, line)))
    return rows


def test_speed(benchmarks, capsys):
    args = benchmarks.speed.arguments(
        ["--models", "sd15-tiny", "--size", "64", "--pairs", "1", "--run-steps", "4", "--run-pairs", "1", "--cfg", "2"]
    )
    text = benchmarks.speed.report(args, benchmarks.pack)
    rows = cells(text, "model")
    steps, runs = [r for r in rows if "s per step" in r], [r for r in rows if "whole run" in r]
    assert len(steps) == 10 and len(runs) == 3
    for row in rows:
        assert all(cell for cell in row.values())
        assert float(row.get("s per step", row.get("s"))) > 0
        middle, low, high = map(float, re.fullmatch(r"(\S+) \((\S+)-(\S+)\)", row["/ plain (quartiles)"]).groups())
        assert 0 < low <= middle <= high and float(row["/ plain, CPU time"]) > 0
        if row.get("sampling", row.get("whole run")) == "plain":
            assert middle == 1
    by_name = {row["sampling"]: row for row in steps}
    memory = "memory rung of the last guided step"
    assert by_name["plain"][memory] == "-" and by_name["guided"][memory] == "plain backward"
    assert by_name["guided, all blocks recomputed"][memory] == "all blocks recomputed"
    assert "recomputed" in by_name["guided, some blocks recomputed"][memory]
    assert float(by_name["guided"]["/ plain, CPU time"]) > 1.2
    assert re.search(r"torch \d.*ComfyUI \d.*20\d\d-\d\d-\d\d", text)


def test_families(benchmarks, tmp_path):
    names = "sd15,guided_diffusion,flux2,wan21"
    args = type("Args", (), dict(pairs=1, families=names))
    rows = cells(benchmarks.families.report(args, benchmarks.pack), "family")
    assert [row["family"] for row in rows] == names.split(",")
    for row in rows:
        assert row["3 Euler steps"] == "ok" and row["prediction"] in ("eps", "flow")
        assert float(row["error against plain autograd"]) < 1e-5
        assert 0 < float(row["against finite differences"]) < 1e-3
        assert float(row["guided / plain"]) > 0 and float(row["known region off by"]) < 1e-4
    assert rows[0]["host class"] == "SD15" and rows[1]["host class"] == "(GradPaint's own)"


def test_a_family_that_fails_has_its_message_in_the_table(benchmarks, monkeypatch):
    def broken(*args):
        raise ValueError("no gradient here\nmore")

    monkeypatch.setattr(benchmarks.families, "gradient_errors", broken)
    args = type("Args", (), dict(pairs=1, families="sd15"))
    text = benchmarks.families.report(args, benchmarks.pack)
    (row,) = cells(text, "family")
    assert row["3 Euler steps"] == "ValueError: no gradient here" and "1 families, 0 work; not: sd15" in text


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--models", "sd9"], "sd9 unknown; allowed: sd15"),
        (["--size", "100"], "--size is 100.*multiple of 64"),
        (["--steps", "4"], "--steps is 4.*odd"),
        (["--offload"], "--offload needs --device cuda"),
        (["--pairs", "0"], "at least 1"),
    ],
)
def test_wrong_arguments(benchmarks, capsys, wrong, message):
    with pytest.raises(SystemExit):
        benchmarks.speed.arguments(wrong)
    assert re.search(message, capsys.readouterr().err)


def test_defaults_per_device(benchmarks):
    assert benchmarks.speed.arguments([]).dtype == "fp32"
    assert benchmarks.speed.arguments(["--device", "cuda"]).dtype == "bf16"


def test_unknown_variant(benchmarks):
    with pytest.raises(SystemExit, match="no 'guidet'; there are: plain; .*guided"):
        benchmarks.speed._chosen(benchmarks.speed.variants(benchmarks.pack, 1.0), "guidet")


@pytest.mark.parametrize("name, parameters", [("sd15", 859_520_964), ("sdxl", 2_567_463_684)])
def test_full_size_models_have_the_published_sizes(benchmarks, monkeypatch, name, parameters):
    import comfy.supported_models
    import torch

    kind, settings = benchmarks.full_size.SETTINGS[name]
    config = getattr(comfy.supported_models, kind)(dict(settings))
    config.set_inference_dtype(torch.float32, None)
    with torch.device("meta"):
        model = config.get_model({}, device=torch.device("meta"))
    assert sum(p.numel() for p in model.diffusion_model.parameters()) == parameters


def test_filled_weights(benchmarks):
    import torch
    from torch.nn import GroupNorm, Linear

    layer = torch.nn.Sequential(Linear(2000, 1000), GroupNorm(4, 1000))
    with torch.no_grad():
        benchmarks.full_size.fill(layer)
    weight = layer[0].weight
    assert abs(weight.std() * 2000**0.5 - 1) < 0.01 and abs(weight.mean()) < 1e-3
    assert not torch.equal(weight[:500], weight[500:])
    assert abs(layer[1].weight.mean() - 1) < 0.05 and layer[1].bias.abs().max() < 1


def test_ratios_are_taken_within_rounds(benchmarks):
    timing = benchmarks.timing
    plain, other = timing.Variant("plain", None), timing.Variant("other", None)
    plain.runs = [timing.Run(s, s, s, s, None) for s in (1.0, 10.0, 2.0)]
    other.runs = [timing.Run(s, s, s, s, None) for s in (2.0, 30.0, 4.0)]
    assert timing.ratios(other, plain) == [2.0, 3.0, 2.0]
    assert timing.quartiles([2.0, 3.0, 2.0])[0] == 2.0 and timing.quartiles([5.0]) == (5.0, 5.0, 5.0)


def test_peak_memory_sees_a_tensor(benchmarks):
    import torch

    memory = benchmarks.timing.PeakMemory("cpu")
    block = torch.ones(40 * 2**20)
    del block
    peak = memory.bytes()
    if peak is None:
        pytest.skip("this system does not say how much memory is resident")
    assert 120 * 2**20 < peak < 400 * 2**20
