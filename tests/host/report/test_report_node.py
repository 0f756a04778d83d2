"""What a run says about its cost before and after, and GradPaint Report, in the real host."""

import importlib
import logging
import re
import statistics
import time
import types

import entry_points
import pytest
import torch
import zoo
from entry_points import case
from guided_runs import gradpaint
from running import run
from sampling import problem, sample, schedule


@pytest.fixture(scope="module")
def model(pack, tmp_path_factory):
    return zoo.build("guided_diffusion", pack, tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def modules(pack):
    names = dict(clock="clock", estimate="estimate", record="record", report="words")
    return types.SimpleNamespace(
        **{name: importlib.import_module(f"{pack.__name__}.nodes.host.report.{part}") for name, part in names.items()}
    )


def guided(tools, model, steps=6, fraction=0.5, family="guided_diffusion", **changes):
    noise, latent, mask = problem(family, batch=2)
    records = []
    patched = gradpaint(tools, model, records, fraction=fraction, **changes)
    sample(patched, family, "euler", schedule(patched, "euler", steps), noise, latent, mask)
    return records[0], latent, mask


def report(pack_nodes, record, **more):
    with torch.inference_mode():
        return run(pack_nodes["GradPaintReport"], record=record, **more)[0].splitlines()


def test_record_holds_the_times_of_every_step(tools, model):
    start = time.perf_counter()
    record, _, _ = guided(tools, model)
    spent = time.perf_counter() - start
    times = record.step_seconds
    assert {kind: len(seconds) for kind, seconds in times.items()} == {"guided": 3, "plain": 3}
    assert 0 < sum(map(sum, times.values())) <= record.seconds < spent
    assert statistics.median(times["guided"]) > 1.2 * statistics.median(times["plain"])  # a backward pass more


def test_kept_steps_have_a_kind_of_their_own(tools, model):
    record, _, _ = guided(tools, model, fraction=1.0, every=2, between="keep")
    assert {kind: len(seconds) for kind, seconds in record.step_seconds.items()} == {"guided": 3, "reused": 3}


def test_report_says_what_happened(tools, model, pack_nodes):
    record, _, _ = guided(tools, model, lambda_al=0.1)
    lines = report(pack_nodes, record)
    assert lines[0] == "steps: 6, of which guided 3"
    assert lines[1] == "end of guidance: guidance lasted 3 steps, as scheduled"
    assert lines[2] == "model evaluations: 6, of which with a backward pass 3"
    assert lines[3].startswith(f"time: {record.seconds:.1f} s; a guided step ")
    assert lines[4].startswith("memory: plain backward; at most ")
    assert re.fullmatch(r"masked MSE \(eq\. 5\): [\d.e+-]+ at step 1, [\d.e+-]+ at step 3", lines[5])
    assert re.fullmatch(r"edge match: [\d.e+-]+ at step 1, [\d.e+-]+ at step 3", lines[6])
    assert lines[7] == "kept area: largest difference from the given latent 0"
    assert lines[8].startswith("seam in the latent: ") and len(lines) == 9


def test_report_names_the_loss_at_the_border_and_its_last_step(tools, model, pack_nodes):
    record, _, _ = guided(tools, model, alignment=tools.settings.AlignmentSettings(loss="alignment", fraction=0.34))
    lines = report(pack_nodes, record)
    assert re.fullmatch(r"masked MSE \(eq\. 5\): [\d.e+-]+ at step 1, [\d.e+-]+ at step 3", lines[5])
    assert re.fullmatch(r"alignment loss \(eq\. 6\): [\d.e+-]+ at step 1, (?!0 )[\d.e+-]+ at step 2", lines[6])


def test_known_error_and_contrast_are_those_of_the_result(tools, model, pack):
    seam = importlib.import_module(f"{pack.__name__}.gradpaint.image.seam")
    noise, latent, mask = problem("guided_diffusion", batch=2)
    records = []
    patched = gradpaint(tools, model, records, fraction=0.5)
    result = sample(patched, "guided_diffusion", "euler", schedule(patched, "euler", 4), noise, latent, mask)
    assert records[0].known_error == 0 == float(((result - latent) * (1 - mask)).abs().max())
    expected = seam.border_contrast(result, mask)
    assert torch.allclose(records[0].contrast, expected, rtol=1e-4) and expected.isfinite().all()


def test_result_that_strays_from_the_known_part_is_told(tools, model, monkeypatch, pack_nodes):
    method = tools.module("gradpaint.sampling.inpaint_method").InpaintMethod
    monkeypatch.setattr(method, "end", lambda self, samples, y, mask: samples + 0.25)
    record, _, _ = guided(tools, model)
    assert "kept area: largest difference from the given latent 0.25" in report(pack_nodes, record)


def test_run_that_ends_early_is_not_judged(tools, model, pack_nodes):
    noise, latent, mask = problem("guided_diffusion")
    records = []
    patched = gradpaint(tools, model, records)
    sample(patched, "guided_diffusion", "euler", schedule(patched, "euler", 6)[:4], noise, latent, mask)
    assert records[0].contrast is None
    assert "not judged" in report(pack_nodes, records[0])[-1]


def test_report_of_no_run(modules, pack_nodes):
    for empty in (modules.record.RunRecord(), modules.record.LiveRecord()):
        (line,) = report(pack_nodes, empty)
        assert line.startswith("no GradPaint run yet") and "connect the sampling node's result" in line


def test_of_two_runs_with_one_model_each_result_has_its_own_report(comfy_host, pack_nodes):
    """Said right after its run, and said again when the graph is queued once more without a change."""
    problem = case("flux", zoo.flux(0))
    model, record = entry_points.apply(pack_nodes, problem)
    said, results = [], []
    for problem.steps in (4, 6):
        results.append(entry_points.host_ksampler(comfy_host, problem, model))
        said.append(report(pack_nodes, record, result=results[-1]))
    assert [lines[0] for lines in said] == ["steps: 4, of which guided 2", "steps: 6, of which guided 3"]
    assert [report(pack_nodes, record, result=result) for result in results] == said
    assert len(record._asked) == 2
    results.clear()
    assert len(record._asked) == 0  # records of results that are gone are gone


def test_report_is_shown_in_the_node(tools, model, pack_nodes):
    record, _, _ = guided(tools, model)
    output = pack_nodes["GradPaintReport"].execute(record=record)
    assert pack_nodes["GradPaintReport"].GET_SCHEMA().is_output_node
    assert output.ui.as_dict() == {"text": (output.args[0],)}


def stitch_of(pack, image, mask):
    stitch = importlib.import_module(f"{pack.__name__}.gradpaint.image.stitch")
    return stitch.whole_image(image.movedim(-1, 1), mask[:, None])


def test_pixels_of_the_finished_image(tools, model, pack, pack_nodes):
    record, _, _ = guided(tools, model)
    image = torch.rand(1, 40, 30, 3, generator=torch.manual_seed(0))
    mask = torch.zeros(1, 40, 30)
    mask[:, 10:20, 8:20] = 1
    stitch = stitch_of(pack, image, mask)
    done = torch.where(mask[..., None] > 0, 0.5, image)
    lines = report(pack_nodes, record, result=done + 1e-7, stitch=stitch)  # rounding is no change
    assert lines[-2] == "image outside the mask: 0% of its pixels changed, by 0 of 255 at most"
    assert lines[-1].startswith("seam in the image: ") and len(lines) == 10
    done[:, 0, 0] += 2 / 255
    lines = report(pack_nodes, record, result=done.repeat(2, 1, 1, 1), stitch=stitch)  # a batch of results
    assert lines[-2] == "image outside the mask: 0.093% of its pixels changed, by 2 of 255 at most"


def test_result_that_can_not_be_compared(tools, model, pack, pack_nodes):
    record, _, _ = guided(tools, model)
    stitch = stitch_of(pack, torch.rand(1, 40, 30, 3), torch.ones(1, 40, 30))
    with pytest.raises(ValueError, match="1 of 30 x 20.*1 of 30 x 40.*GradPaint Composite"):
        report(pack_nodes, record, result=torch.rand(1, 20, 30, 3), stitch=stitch)
    with pytest.raises(ValueError, match="not an IMAGE"):
        report(pack_nodes, record, result={"samples": torch.zeros(1, 4, 8, 8)}, stitch=stitch)


# ---- the estimate before a run


def expected_of(caplog) -> list[str]:
    return [message for message in caplog.messages if "steps will be guided" in message]


def test_log_says_the_cost_before_the_run_and_learns_from_it(tools, pack, tmp_path, modules, caplog):
    caplog.set_level(logging.INFO)
    model = zoo.build("guided_diffusion", pack, tmp_path)
    record, _, _ = guided(tools, model, steps=8)
    assert expected_of(caplog) == [
        "GradPaint: 4 of 8 steps will be guided: about 1.4 to 1.6 times a plain run's time, more where memory is short"
    ]
    guided(tools, model, steps=8)
    ratio = modules.estimate.ratio_of(record)
    assert expected_of(caplog)[1].startswith(
        f"GradPaint: 4 of 8 steps will be guided: about {1 + (ratio - 1) / 2:.1f} times a plain run's time, "
    )
    assert f"as long as {ratio:.1f} plain ones" in expected_of(caplog)[1]


def test_estimate_counts_the_evaluations_for_pictures(pack, pack_nodes, modules, caplog):
    caplog.set_level(logging.INFO)
    flux = zoo.flux(0)
    settings = importlib.import_module(f"{pack.__name__}.gradpaint.method.settings")
    given = {"alignment": settings.AlignmentSettings(lambda_al=0.1, space="latent")}
    entry_points.ksampler(pack_nodes, case("flux", flux, steps=8, settings=given), keep_record="pictures")
    entry_points.ksampler(pack_nodes, case("flux", flux, steps=8), keep_record="pictures")  # one loss, one evaluation
    assert [line.split(": ")[2].split(" times")[0] for line in expected_of(caplog)] == [
        "about 2.3 to 2.8",
        "about 1.4 to 1.6",
    ]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"gradient": "x0"}, "at next to no cost"),
        ({"fraction": 1.0}, "about 1.8 to 2.3 times"),
        ({"strength": 0.0}, None),
    ],
)
def test_estimate_by_settings(tools, pack, tmp_path, caplog, changes, message):
    caplog.set_level(logging.INFO)
    guided(tools, zoo.build("guided_diffusion", pack, tmp_path), **changes)
    said = expected_of(caplog)
    assert (not said) if message is None else (len(said) == 1 and message in said[0])


def test_clock_counts_what_lies_between_marks(modules):
    clock = modules.clock.StepClock(torch.device("cpu"))
    for kind, seconds in (("guided", 0.05), ("plain", 0.02), ("plain", 0.03)):
        clock.mark(kind)
        time.sleep(seconds)
    total, steps = clock.close()
    assert steps["guided"] == [pytest.approx(0.05, abs=0.02)]
    assert steps["plain"] == [pytest.approx(0.02, abs=0.015), pytest.approx(0.03, abs=0.02)]
    assert total >= sum(map(sum, steps.values()))
