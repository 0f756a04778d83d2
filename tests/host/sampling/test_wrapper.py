"""GradPaint as wrappers on a cloned MODEL: what it keeps, what it leaves alone, how it stops."""

import pytest
import torch
import zoo
from sampling import problem, sample, schedule


@pytest.fixture(scope="module")
def models(pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, pack, folder) for family in zoo.FAMILIES}


def settings(tools, **changes):
    return tools.settings.GuidanceSettings(**changes)


def gradpaint(tools, model, records=None, **changes):
    return tools.guidance.apply_gradpaint(
        model, settings(tools, **changes), None if records is None else records.append
    )


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_the_callers_model_is_untouched(tools, models, family):
    model = models[family]
    noise, latent, mask = problem(family)
    sigmas = schedule(model, "euler", 4)
    weights = {k: v.clone() for k, v in model.model.state_dict().items()}
    options = repr(model.model_options)
    before = sample(model, family, "euler", sigmas, noise, latent, mask)
    records = []
    result = sample(gradpaint(tools, model, records), family, "euler", sigmas, noise, latent, mask)
    after = sample(model, family, "euler", sigmas, noise, latent, mask)
    assert torch.equal(before, after) and not torch.allclose(before, result)
    assert repr(model.model_options) == options and not model.wrappers.get("sampler_sample")
    state = model.model.state_dict()
    assert state.keys() == weights.keys() and all(torch.equal(state[k], weights[k]) for k in weights)
    assert not any("forward" in vars(m) for m in model.model.modules())
    (record,) = records
    assert (record.steps, record.evaluations, record.backwards, len(record.losses("mse"))) == (4, 4, 2, 2)
    assert record.skipped == 0 and all(step.gradient_rms.gt(0).all() for step in record.guided)


@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("sampler", ["euler", "ddpm", "dpmpp_2m", "heun", "uni_pc", "dpm_adaptive", "dpm_fast", "lcm"])
def test_known_region_is_kept_and_the_result_is_finite(tools, models, sampler, fraction):
    model = models["sd15"]
    noise, latent, mask = problem("sd15", batch=2)
    sigmas = schedule(model, sampler, 6)
    schedule_ = tools.settings.GuideSchedule(fraction=fraction)
    out = sample(gradpaint(tools, model, schedule=schedule_), "sd15", sampler, sigmas, noise, latent, mask)
    known = (mask == 0).expand_as(out)
    expected = model.model.process_latent_in(latent)
    assert (out - expected)[known].abs().max() < 1e-5 and out.isfinite().all()


def test_runs_repeat_and_depend_on_the_seed(tools, models):
    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, "euler_ancestral", 4)
    guided = gradpaint(tools, model)
    runs = [sample(guided, "sd15", "euler_ancestral", sigmas, noise, latent, mask, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.allclose(runs[0], runs[2])


def test_applied_twice_the_later_settings_hold(tools, models):
    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, "euler", 4)
    once = gradpaint(tools, model, alpha=0.3)
    twice = gradpaint(tools, gradpaint(tools, model, alpha=0.1), alpha=0.3)
    assert torch.equal(*(sample(m, "sd15", "euler", sigmas, noise, latent, mask) for m in (once, twice)))


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_guidance_with_cfg_lowers_the_loss(tools, models, family):
    model = models[family]
    noise, latent, mask = problem(family)
    sigmas = schedule(model, "euler", 12)
    last = {}
    for alpha in (1e-9, 0.05):
        records = []
        full = tools.settings.GuideSchedule.full()
        off = tools.settings.AlignmentSettings(lambda_al=0.0)
        sample(
            gradpaint(tools, model, records, alpha=alpha, schedule=full, alignment=off),
            family,
            "euler",
            sigmas,
            noise,
            latent,
            mask,
            cfg=3.0,
        )
        last[alpha] = float(sum(records[0].losses("mse")[6:]))
    assert last[0.05] < last[1e-9]


def test_without_a_mask_it_is_a_plain_run(tools, models, caplog):
    model = models["sd15"]
    noise, latent, _ = problem("sd15")
    sigmas = schedule(model, "euler", 3)
    plain = sample(model, "sd15", "euler", sigmas, noise, latent)
    with caplog.at_level("WARNING"):
        assert torch.equal(sample(gradpaint(tools, model), "sd15", "euler", sigmas, noise, latent), plain)
    assert "no noise mask" in caplog.text


def test_nothing_leaks_from_under_the_hole_at_full_denoise(tools, models):
    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, "euler", 4)
    other = torch.where(mask > 0, torch.full_like(latent, 5.0), latent)
    guided = gradpaint(tools, model)
    assert torch.equal(*(sample(guided, "sd15", "euler", sigmas, noise, z, mask) for z in (latent, other)))
    # Below full denoise what is under the hole is where the run starts from, as in the host.
    assert not torch.equal(*(sample(guided, "sd15", "euler", sigmas[1:], noise, z, mask) for z in (latent, other)))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_grey_mask_mixes_once_as_the_host_does(tools, models, fraction):
    noise, latent, mask = problem("sd15")
    model = models["sd15"].clone()
    model.set_model_sampler_post_cfg_function(lambda args: torch.full_like(args["input"], 3.0) + 0 * args["denoised"])
    sigmas = schedule(model, "euler", 4)
    soft = mask.clone()
    soft[..., 4:6, 5:11] = 0.5
    plain = sample(model, "sd15", "euler", sigmas, noise, latent, soft)
    schedule_ = tools.settings.GuideSchedule(fraction=fraction)
    out = sample(gradpaint(tools, model, alpha=1e-6, schedule=schedule_), "sd15", "euler", sigmas, noise, latent, soft)
    assert torch.allclose(out, plain, atol=1e-4)


def test_differential_diffusion_composes(tools, models):
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    ramp = torch.linspace(0, 1, 16).expand(1, 1, 16, 16).contiguous()
    patched = DifferentialDiffusion.execute(model, 1.0).args[0]
    sigmas = schedule(model, "euler", 6)
    known = []
    expected = model.model.process_latent_in(latent)

    def callback(i, x0_hat, x, total):
        known.append((x0_hat - expected).abs().amax((0, 1, 2)) < 1e-5)  # by column

    out = sample(gradpaint(tools, patched), "sd15", "euler", sigmas, noise, latent, ramp, callback=callback)
    shares = [float(columns.float().mean()) for columns in known]
    # The brighter a pixel of the mask, the earlier it is set free; at the end nothing is held.
    assert out.isfinite().all() and shares[0] > 0.8 and shares == sorted(shares, reverse=True) and shares[-1] < 0.3
    assert all(bool(columns[:-1].ge(columns[1:]).all()) for columns in known)


def test_previews_show_x0_hat_and_progress_counts_steps(tools, models):
    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    known = (mask == 0).expand_as(latent)
    expected = model.model.process_latent_in(latent)
    for sampler in ("euler", "uni_pc"):  # displaced in place, displaced through x0_hat
        sigmas = schedule(model, sampler, 5)
        seen = []
        sample(
            gradpaint(tools, model, alpha=0.5),
            "sd15",
            sampler,
            sigmas,
            noise,
            latent,
            mask,
            callback=lambda i, x0, x, total, seen=seen: seen.append((i, total, x0.clone())),
        )
        assert len(seen) == 5 and all(total in (5, 6) for _, total, _ in seen)
        for _, _, x0 in seen[:-1] if sampler == "uni_pc" else seen:
            assert (x0 - expected)[known].abs().max() < 1e-5


@pytest.mark.parametrize("where", ["forward", "backward", "callback"])
def test_cancel_leaves_everything_as_it_was(tools, models, where):
    import comfy.model_management as management

    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, "euler", 4)
    guided = gradpaint(tools, model)
    untouched = sample(guided, "sd15", "euler", sigmas, noise, latent, mask)
    leaves = [m for m in model.model.diffusion_model.modules() if isinstance(m, torch.nn.Conv2d)]
    calls = []

    def cancel(*args):
        calls.append(1)
        if len(calls) == 2:  # the second guided step
            management.interrupt_current_processing(True)

    hook = (
        leaves[3].register_forward_hook(cancel)
        if where == "forward"
        else leaves[3].register_full_backward_hook(cancel)
        if where == "backward"
        else None
    )
    try:
        with pytest.raises(management.InterruptProcessingException):
            sample(guided, "sd15", "euler", sigmas, noise, latent, mask, callback=cancel if hook is None else None)
    finally:
        if hook is not None:
            hook.remove()
        management.interrupt_current_processing(False)
    assert len(calls) == 2  # within that model evaluation
    assert not any("forward" in vars(m) for m in model.model.modules()) and not management.in_training
    assert torch.equal(sample(guided, "sd15", "euler", sigmas, noise, latent, mask), untouched)


def test_a_gradient_that_is_not_finite_skips_the_displacement(tools, models, caplog):
    model = models["sd15"]
    noise, latent, mask = problem("sd15", batch=2)
    sigmas = schedule(model, "euler", 4)
    broken = gradpaint(tools, model, records := [])
    # Finite value, infinite derivative, for the first sample only.
    broken.set_model_sampler_post_cfg_function(
        lambda args: (
            args["denoised"]
            + torch.tensor([0.0, 0]).view(2, 1, 1, 1)
            * (args["input"] * torch.tensor([0.0, 1]).view(2, 1, 1, 1)).abs().sqrt()
        )
    )
    with caplog.at_level("WARNING"):
        out = sample(broken, "sd15", "euler", sigmas, noise, latent, mask)
    assert out.isfinite().all() and records[0].skipped == 2
    assert "not finite" in caplog.text and "left out" in caplog.text


def test_alignment_is_off_on_latents_and_on_on_pixels(tools, models):
    for family, active in (("sd15", False), ("guided_diffusion", True)):
        noise, latent, mask = problem(family)
        alignment = tools.settings.AlignmentSettings(lambda_al=1.0)
        sample(
            gradpaint(tools, models[family], records := [], alignment=alignment),
            family,
            "euler",
            schedule(models[family], "euler", 2),
            noise,
            latent,
            mask,
        )
        assert bool(records[0].losses("alignment")[0].gt(0).all()) is active
