"""What may go wrong around a run: numbers that can't be measured, a RePaint run that goes on with another's noise."""

import importlib

import entry_points
import pytest
import torch
import zoo
from entry_points import case
from sampling import problem, sample, schedule


@pytest.fixture(scope="module")
def model(pack, tmp_path_factory):
    return zoo.build("sd15", pack, tmp_path_factory.mktemp("zoo"))


def host(pack, name):
    return importlib.import_module(f"{pack.__name__}.nodes.host.{name}")


def fails(*arguments, **others):
    raise RuntimeError("can't be measured")


@pytest.mark.parametrize(
    "module, name, what",
    [
        ("report.statistics", "border_contrast", "the seam"),
        ("report.statistics", "known_error", "the kept area"),
        ("report.picture_keeper", "Keeper.close", "the pictures"),
        ("report.clock", "StepClock.close", "the time"),
        ("sampling.entry_point", "learn", "the cost"),
        ("sampling.entry_point", "log_lines", "the summary"),
    ],
)
def test_a_number_that_fails_costs_no_picture(pack, pack_nodes, model, monkeypatch, caplog, module, name, what):
    problem = case("sd15", model, steps=2)
    picture = entry_points.ksampler(pack_nodes, problem)[0]["samples"]
    owner, module = name.split("."), host(pack, module)
    monkeypatch.setattr(getattr(module, owner[0]) if len(owner) == 2 else module, owner[-1], fails)
    latent, record = entry_points.ksampler(pack_nodes, problem, keep_record="pictures")
    assert torch.equal(latent["samples"], picture) and record.steps == 2 and record.evaluations >= 2
    (warning,) = [line for line in caplog.records if line.levelname == "WARNING" and "GradPaint" in line.message]
    assert f"{what} of this run could not be measured" in warning.message


def test_repaint_goes_on_with_the_noise_of_another_run(pack, pack_nodes, model, caplog):
    """The known region is what the first segment was given, not the noisy latent; the log tells it once."""
    import comfy_extras.nodes_custom_sampler as nodes

    problem = case("sd15", model)
    first, _ = entry_points.apply(pack_nodes, problem)
    methods = host(pack, "sampling.methods")
    last = methods.apply_method(model, "repaint", resamplings=2, jump_length=1)
    high, low = nodes.SplitSigmas.execute(entry_points.sigmas(problem), 2).args
    sampler = entry_points.plain_sampler(problem)
    guiders = (entry_points.cfg_guider(problem, patched) for patched in (first, last))
    with torch.inference_mode(), caplog.at_level("INFO"):
        noise = nodes.RandomNoise.execute(problem.seed).args[0], nodes.DisableNoise.execute().args[0]
        latent = problem.masked
        for added, guider, levels in zip(noise, guiders, (high, low)):
            latent = nodes.SamplerCustomAdvanced.execute(added, guider, sampler, levels, latent).args[0]
    known = (problem.mask == 0)[:, None].expand_as(latent["samples"])
    assert (latent["samples"] - problem.latent["samples"])[known].abs().max() < 1e-5
    assert caplog.text.count("goes on after step 2") == 1


def test_a_run_without_any_loss_says_so(tools, model, caplog):
    """On a latent model the loss at the border is off unless a space is chosen."""
    noise, latent, mask = problem("sd15")
    settings = tools.settings.GuidanceSettings(lambda_mse=0.0)
    patched = tools.guidance.apply_gradpaint(model, settings, (records := []).append)
    with caplog.at_level("WARNING"):
        sample(patched, "sd15", "euler", schedule(patched, "euler", 4), noise, latent, mask)
    assert "no loss is left to guide by" in caplog.text and not records[0].guided
