"""Steps are told apart whatever the sampler and other wrappers do."""

import pytest
import torch
import zoo
from guided_runs import gradpaint, model_calls
from sampling import problem, sample, schedule


@pytest.fixture(scope="module")
def models():
    return {"sd15": zoo.sd15()}


def test_another_wrapper_that_evaluates_twice_changes_no_count(tools, models):
    import comfy.patcher_extension as extension

    noise, latent, mask = problem("sd15")
    sigmas = schedule(models["sd15"], "heun", 6)
    twice = models["sd15"].clone()
    twice.add_wrapper(
        extension.WrappersMP.PREDICT_NOISE,
        lambda executor, x, *args, **kwargs: (executor(x, *args) + executor(x, *args)) / 2,
    )
    results = [
        sample(gradpaint(tools, model, records := []), "sd15", "heun", sigmas, noise, latent, mask)
        for model in (twice, models["sd15"])
    ]
    assert torch.allclose(*results, atol=1e-4)
    assert records[0].evaluations == 11 and records[0].backwards == 6


def test_another_wrapper_that_answers_some_calls_itself_changes_no_count(tools, models):
    """As the host's LazyCache does."""
    import comfy.patcher_extension as extension

    answered = []

    def wrapper(executor, x, *args, **kwargs):
        answered.append(executor(x, *args) if len(answered) % 2 == 0 else None)
        return x * 0.5 if answered[-1] is None else answered[-1]

    noise, latent, mask = problem("sd15")
    cached = models["sd15"].clone()
    cached.add_wrapper(extension.WrappersMP.PREDICT_NOISE, wrapper)
    with model_calls(cached) as calls:
        out = sample(
            gradpaint(tools, cached, records := [], fraction=0.5),
            "sd15",
            "euler",
            schedule(cached, "euler", 6),
            noise,
            latent,
            mask,
        )
    assert calls == [(1, True), (1, True), (1, False)] and out.isfinite().all()
    assert records[0].evaluations == 6 and len(records[0].guided) == 3


def test_a_sampler_that_does_not_follow_its_dry_run_is_followed_by_its_noise_levels(tools, models, caplog):
    import comfy.sample
    import comfy.samplers

    @torch.no_grad()
    def sample_answer_dependent(model, x, sigmas, extra_args=None, callback=None, disable=None):
        level = x.new_ones([len(x)])
        for i in range(len(sigmas) - 1):
            x0 = model(x, sigmas[i] * level, **extra_args)
            if x0.abs().max() > 0:  # never in a dry run
                x0 = model(x, sigmas[i] * level, **extra_args)
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x0})
            x = x0 + (x - x0) * (sigmas[i + 1] / sigmas[i])
        return x

    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, "euler", 6)
    guided = gradpaint(tools, model, records := [], fraction=0.5)
    with torch.inference_mode(), caplog.at_level("INFO"):
        out = comfy.sample.sample_custom(
            guided,
            noise,
            1.0,
            comfy.samplers.KSAMPLER(sample_answer_dependent),
            sigmas,
            zoo.conditioning("sd15"),
            zoo.conditioning("sd15"),
            latent,
            noise_mask=mask,
            disable_pbar=True,
            seed=3,
        )
        assert (out - latent)[(mask == 0).expand_as(out)].abs().max() < 1e-4 and out.isfinite().all()
    assert "does not follow its dry run" in caplog.text
    (record,) = records
    assert record.evaluations == 12 and [s.sigma for s in record.guided] == pytest.approx(sigmas[:3].tolist(), 1e-4)


def test_planned_steps_do_not_look_at_the_noise_level_of_the_call(tools):
    steps, probe = (tools.module(f"nodes.host.sampling.{part}") for part in ("steps", "probe"))
    plan = probe.CallMap({0: probe.Step(0, 2.0, 1.0), 2: probe.Step(1, 1.0, 0.0)}, [2, 3], 2, True, True, None)
    counter = steps.StepCounter(plan, torch.tensor([2.0, 1.0, 0.0]))
    assert counter.step(None) == probe.Step(0, 2.0, 1.0) and counter.step(None) is None and not counter.callback()
    assert counter.step(None) == probe.Step(1, 1.0, 0.0) and counter.total == 2
    assert not counter.callback() and counter.call_map is plan
