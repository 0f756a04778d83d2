"""Eq. 9 in the host's own samplers: the next state moves by exactly alpha*s*g_hat."""

import pytest
import torch
import zoo
from sampling import problem, recorded, sample, schedule

ALPHA = 0.08


@pytest.fixture(scope="module")
def models(pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, pack, folder) for family in ("sd15", "flux", "guided_diffusion")}


def guided(tools, model, alpha, steps=10_000):
    settings = tools.settings.GuidanceSettings(
        alpha=alpha,
        alignment=tools.settings.AlignmentSettings(lambda_al=0.0),
        schedule=tools.settings.GuideSchedule(mode="steps", steps=steps),
    )
    return tools.guidance.apply_gradpaint(model, settings)


def state_scale(family, sigma):
    return ((1 - sigma) ** 2 + sigma**2) ** 0.5 if family == "flux" else (1 + sigma**2) ** 0.5


def in_state_units(family, x, sigma):
    """The host divides a flow run's result by 1 - sigma at its end."""
    return x * (1 - sigma) if family == "flux" else x


@pytest.mark.parametrize("family", ["sd15", "flux", "guided_diffusion"])
@pytest.mark.parametrize(
    "sampler",
    [
        "euler",
        "ddim",
        "ddpm",
        "euler_ancestral",
        "dpmpp_2m",
        "lcm",
        "heun",
        "dpmpp_sde",
        "deis",
        "sa_solver",
        "res_multistep",
        "euler_cfg_pp",
    ],
)
def test_one_step(tools, models, family, sampler):
    model = models[family]
    noise, latent, mask = problem(family)
    sigmas = schedule(model, sampler, 8)[2:4]
    with recorded(tools.module("gradpaint.method.plan"), "displacement") as displacements:
        with_it = sample(guided(tools, model, ALPHA), family, sampler, sigmas, noise, latent, mask)
    without = sample(guided(tools, model, 0.0), family, sampler, sigmas, noise, latent, mask)
    ((displacement, finite),) = displacements
    assert bool(finite.all())
    moved = in_state_units(family, with_it - without, sigmas[-1])
    assert torch.allclose(moved, displacement, atol=1e-4)
    assert moved.square().mean().sqrt().item() == pytest.approx(ALPHA * state_scale(family, float(sigmas[-1])), 1e-3)


@pytest.mark.parametrize(
    "sampler", ["euler", "dpmpp_2m", "dpmpp_3m_sde", "er_sde", "res_multistep", "lms", "lcm", "sa_solver"]
)
def test_history_of_a_multistep_sampler_is_clean(tools, models, sampler):
    """Guide the first of two steps: the second step's state must be the first's, moved, and nothing else.

    A shifted x0_hat in the sampler's history would be extrapolated by its next step; the state alone is not.
    """
    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, sampler, 8)[2:5]
    states = []
    for alpha in (0.0, ALPHA):
        run_class, seen = tools.run.GuidedRun, []
        original = run_class.callback

        def callback(self, i, denoised, x, total, original=original, seen=seen):
            seen.append(x.clone())
            original(self, i, denoised, x, total)

        run_class.callback = callback
        try:
            with recorded(tools.module("gradpaint.method.plan"), "displacement") as displacements:
                sample(guided(tools, model, alpha, steps=1), "sd15", sampler, sigmas, noise, latent, mask)
        finally:
            run_class.callback = original
        states.append(seen)
    assert torch.allclose(states[1][1] - states[0][1], displacements[0][0], atol=1e-4)


def probe(tools, model, sampler, sigmas):
    import comfy.samplers

    probe_module = tools.module("nodes.host.sampling.probe")
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_model = model.model
    sampler_object = comfy.samplers.sampler_object(sampler)
    return probe_module.probe_sampler(sampler_object, guider, sigmas, torch.zeros(1, 4, 8, 8), 1)


def test_every_sampler_of_the_host_has_a_plan(tools, models):
    import comfy.samplers

    without = []
    for sampler in comfy.samplers.SAMPLER_NAMES:
        state = torch.random.get_rng_state()
        sigmas = schedule(models["sd15"], sampler, 8)
        plan = probe(tools, models["sd15"], sampler, sigmas)
        assert torch.equal(torch.random.get_rng_state(), state), sampler
        if plan is None:
            without.append(sampler)
            continue
        assert plan.total == (3 if sampler == "dpm_fast" else 8), sampler
        levels = [step.sigma_next for step in plan.steps.values()]
        assert levels == sorted(levels, reverse=True), sampler
        assert plan.in_place == (plan.effects is None), sampler
    assert without == ["dpm_adaptive"]  # its calls depend on the model's answers


@pytest.mark.parametrize("family, scheduler", [("sd15", "normal"), ("flux", "simple")])
@pytest.mark.parametrize(
    "sampler",
    [
        "euler",
        "heun",
        "dpmpp_2m",
        "lcm",
        "gradient_estimation",
        "deis",
        "euler_ancestral_cfg_pp",
        "uni_pc",
        "sa_solver_pece",
    ],
)
def test_in_place_or_through_x0_hat(tools, models, sampler, family, scheduler):
    through_x0_hat = sampler in ("uni_pc", "sa_solver_pece")
    for steps in (8,) if through_x0_hat else (1, 2, 8):
        plan = probe(tools, models[family], sampler, schedule(models[family], sampler, steps, scheduler))
        assert plan.in_place != through_x0_hat, steps


@pytest.mark.parametrize("sampler", ["uni_pc", "uni_pc_bh2", "sa_solver"])
def test_history_shifts_cancel_their_echo(tools, models, sampler):
    """Open loop: with x0_hat fixed, each displacement moves its state and is then inherited as the state is."""
    import comfy.samplers

    probe_module = tools.module("nodes.host.sampling.probe")
    shift_module = tools.module("nodes.host.sampling.history_shift")
    guider = comfy.samplers.CFGGuider(models["sd15"])
    guider.inner_model = models["sd15"].model
    sigmas = schedule(models["sd15"], sampler, 10)
    sampler_object = comfy.samplers.sampler_object(sampler)
    runs = probe_module._DryRuns(sampler_object, guider, sigmas, torch.zeros(1, 4, 8, 8), 1)
    plan = probe_module.probe_sampler(sampler_object, guider, sigmas, torch.zeros(1, 4, 8, 8), 1)
    calls = list(plan.steps)
    moves = torch.tensor(runs.effects(calls, answers=calls))
    history = shift_module.HistoryShift(plan.effects)
    shifts, wanted, inherited = torch.zeros(len(calls)), [], torch.zeros(())
    levels = [float(s) for s in sigmas]
    for k in range(len(calls) - 1):  # the last step ends at noise level 0
        displacement = torch.ones(()) if k < 5 else None
        given = history.shift(k, displacement)
        shifts[k] = 0.0 if given is None else given
        level = plan.steps[calls[k - 1]].sigma_next if k else levels[0]
        inherited = inherited * plan.steps[calls[k]].sigma_next / level + (0 if displacement is None else displacement)
        wanted.append(float(inherited))
    reached = (shifts @ moves)[:-1].tolist()
    assert reached == pytest.approx(wanted, rel=0.02, abs=0.02)
    assert shifts.abs().max() < 5 and wanted[4] > 2


def test_displacement_without_a_plan_stays_near_eq_9(tools, models):
    """dpm_adaptive chooses its own steps: no x0_hat may be moved by much more than eq. 9's displacement."""
    noise, latent, mask = problem("sd15")
    sigmas = schedule(models["sd15"], "dpm_adaptive", 30)
    mover, ratios = tools.run.StateMover, []
    original = mover.depart

    def spy(self, x, estimate, step, displacement):
        shifted = original(self, x, estimate, step, displacement)
        if displacement is not None:
            ratios.append(float((shifted - estimate).norm() / displacement.norm()))
        return shifted

    mover.depart = spy
    try:
        sample(guided(tools, models["sd15"], ALPHA), "sd15", "dpm_adaptive", sigmas, noise, latent, mask)
    finally:
        mover.depart = original
    assert ratios and max(ratios) <= 2.0 + 1e-4
