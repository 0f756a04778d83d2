"""Cheaper gradients and kept directions: exact against hand-made twins, and they cost what they say."""

import math

import pytest
import torch
import zoo
from guided_runs import detached_but, gradients, gradpaint, model_calls
from sampling import problem, recorded, sample, schedule

FAMILIES = ("sd15", "flux", "guided_diffusion")


@pytest.fixture(scope="module")
def models(pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, pack, folder) for family in FAMILIES}


def cosine(a, b) -> float:
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def assert_parallel(a, b):
    """Equal up to a factor; the twin batches its evaluations, which rounds differently."""
    assert cosine(a.double(), b.double()) > 1 - 1e-8


# ---- through the conditional branch


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_cond_is_the_gradient_with_everything_else_constant(tools, models, family):
    model = models[family]
    noise, latent, mask = problem(family)
    sigmas = schedule(model, "euler", 8)[2:4]
    run = lambda gradient: sample(
        gradpaint(tools, model, gradient=gradient), family, "euler", sigmas, noise, latent, mask, cfg=4.0
    )
    with gradients(tools) as ours, model_calls(model) as calls:
        run("cond")
    with gradients(tools) as twin, detached_but([0]):
        run("model")
    with gradients(tools) as full:
        run("model")
    assert calls == [(1, False), (1, True)]
    assert_parallel(ours[0], twin[0])
    assert 0 < cosine(ours[0], full[0]) < 1 - 1e-4  # and it is another direction than the exact one


def guider(model, kind):
    import comfy_extras.nodes_custom_sampler as custom
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    a, b, c = (zoo.conditioning("sd15", seed=seed) for seed in (1, 2, 3))
    if kind == "perp_neg":
        made = Guider_PerpNeg(model)
        made.set_conds(a, b, c)
        made.set_cfg(4.0, 1.0)
    elif kind == "basic":
        made = custom.Guider_Basic(model)
        made.set_conds(a)
    elif kind == "dual_model":
        made = custom.Guider_DualModel(model, model)
        made.set_conds(a, b)
        made.set_cfg(4.0)
    else:
        made = custom.Guider_DualCFG(model)
        made.set_conds(a, b, c)
        made.set_cfg(4.0, 2.0, nested=kind == "dual_nested")
    return made


@pytest.mark.parametrize(
    "kind, index, network_calls",
    [
        ("dual", [2], [False, True]),
        ("dual_nested", [2], [False, True]),
        ("perp_neg", [0], [False, True]),
        ("dual_model", [0], [True, False]),
        ("basic", [0], [True]),
    ],
)
def test_cond_finds_the_positive_conditioning_of_other_guiders(tools, models, kind, index, network_calls):
    import comfy.samplers

    model = models["sd15"]
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, "euler", 8)[2:4]

    def run(gradient):
        with torch.inference_mode():
            guider(gradpaint(tools, model, gradient=gradient), kind).sample(
                noise.clone(),
                latent.clone(),
                comfy.samplers.sampler_object("euler"),
                sigmas,
                mask,
                disable_pbar=True,
                seed=3,
            )

    with gradients(tools) as ours, model_calls(model) as calls:
        run("cond")
    with gradients(tools) as twin, detached_but(index):
        run("model")
    assert [graph for _, graph in calls] == network_calls
    assert_parallel(ours[0], twin[0])


@pytest.mark.parametrize("names, chosen", [(("negative", "positive"), "positive"), (("main", "other"), "main")])
def test_the_positive_conditioning_goes_by_its_name_else_it_is_the_first(tools, names, chosen):
    branches = tools.module("nodes.host.sampling.branches")

    class Guider:
        conds = {name: [{"uuid": name}] for name in names}

    options = branches.through_positive({}, Guider)["transformer_options"]
    wrapper = options["wrappers"]["calc_cond_batch"]["gradpaint"][0]

    def executor(model, conds, *args):
        seen.append([None if cond is None else cond[0]["uuid"] for cond in conds])
        return [torch.zeros(()) if cond is None else torch.ones(()) * torch.is_grad_enabled() for cond in conds]

    seen, groups = [], list(Guider.conds.values())
    graphs = wrapper(executor, None, [None, *groups], torch.zeros(1), None, {})
    (other,) = set(names) - {chosen}
    assert [group for call in seen for group in call if group] == [other, chosen]
    assert [bool(graph) for graph in graphs] == [False, *(name == chosen for name in names)]


class CopyingHandler:
    """What the host's context windows do to conditionings: the guider's lists never arrive, copies of them do."""

    def should_use_context(self, *args):
        return True

    def execute(self, calc_cond_batch, model, conds, x_in, timestep, model_options):
        copies = [None if group is None else [dict(cond) for cond in group] for group in conds]
        halves = [calc_cond_batch(model, copies, x, timestep, model_options) for x in x_in.chunk(2, dim=-1)]
        return [torch.cat(parts, dim=-1) for parts in zip(*halves)]


def assert_cond_is_its_twin(tools, model):
    """One step's gradient "cond" against "model" with the other branches detached; whether each call left a graph."""
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, "euler", 8)[2:4]

    def run(gradient):
        sample(gradpaint(tools, model, gradient=gradient), "sd15", "euler", sigmas, noise, latent, mask, cfg=4.0)

    with gradients(tools) as ours, model_calls(model) as calls:
        run("cond")
    with gradients(tools) as twin, detached_but([0]):
        run("model")
    assert_parallel(ours[0], twin[0])
    return [graph for _, graph in calls]


def test_cond_in_context_windows(tools, models):
    model = models["sd15"].clone()
    model.model_options["context_handler"] = CopyingHandler()
    graphs = assert_cond_is_its_twin(tools, model)
    assert graphs == [False, True] * 2  # each window


def test_cond_leaves_perturbed_attention_out_and_goes_through_what_is_done_after_cfg(tools, models):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    model = PerturbedAttentionGuidance.execute(models["sd15"], 3.0).args[0]
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * args["denoised"].std())
    graphs = assert_cond_is_its_twin(tools, model)
    assert graphs == [False, True, False]


def test_cond_at_cfg_1_is_the_exact_gradient(tools, models):
    noise, latent, mask = problem("sd15")
    sigmas = schedule(models["sd15"], "euler", 3)
    results = [
        sample(gradpaint(tools, models["sd15"], gradient=gradient), "sd15", "euler", sigmas, noise, latent, mask)
        for gradient in ("cond", "model")
    ]
    assert torch.equal(*results)


# ---- in x0_hat alone


@pytest.mark.parametrize("family", FAMILIES)
def test_x0_never_differentiates_the_model(tools, models, family):
    model = models[family]
    noise, latent, mask = problem(family)
    sigmas = schedule(model, "euler", 4)
    patched, estimates = [], []

    def callback(i, x0_hat, x, total):
        patched.append(any("forward" in vars(m) for m in model.model.modules()))

    def keep(args):
        estimates.append(args["denoised"].clone())
        return args["denoised"]

    spied = model.clone()
    spied.set_model_sampler_post_cfg_function(keep)
    with gradients(tools) as found, model_calls(model) as calls:
        sample(
            gradpaint(tools, spied, records := [], gradient="x0"),
            family,
            "euler",
            sigmas,
            noise,
            latent,
            mask,
            callback=callback,
        )
    assert calls == [(1, False)] * 4 and patched == [False] * 4
    (record,) = records
    assert (record.evaluations, record.backwards, len(record.losses("mse")), len(record.guided)) == (4, 0, 4, 4)
    y = model.model.process_latent_in(latent)
    library = tools.module("gradpaint.method.gradient")
    for grad, x0_hat, mse, sigma in zip(found, estimates, record.losses("mse"), sigmas.tolist()):
        expected = library.wiener((1 - mask) * (x0_hat - y), 1 - sigma if family == "flux" else 1.0, sigma)
        assert_parallel(grad, expected)
        assert mse.item() == pytest.approx(((x0_hat - y) ** 2)[(mask == 0).expand_as(y)].mean().item(), 1e-4)


# ---- the last direction kept


@pytest.mark.parametrize("gradient", ["model", "x0"])
@pytest.mark.parametrize("family, sampler", [("sd15", "euler"), ("flux", "dpmpp_2m"), ("sd15", "uni_pc")])
def test_kept_steps_move_by_eq_9_with_the_last_direction(tools, models, family, sampler, gradient):
    model = models[family]
    noise, latent, mask = problem(family)
    sigmas = schedule(model, sampler, 8)
    wrapped = gradpaint(
        tools, model, records := [], every=3, between="keep", fraction=0.75, gradient=gradient, alpha=0.08
    )
    with recorded(tools.module("gradpaint.method.plan"), "displacement") as displacements, model_calls(model) as calls:
        sample(wrapped, family, sampler, sigmas, noise, latent, mask)
    (record,) = records
    levels = [pytest.approx(level, 1e-4) for level in sigmas.tolist()]
    assert [s.sigma for s in record.guided] == [levels[0], levels[3]]
    assert [s.sigma for s in record.reused] == [levels[1], levels[2], levels[4], levels[5]]
    assert record.backwards == (2 if gradient == "model" else 0) and record.evaluations == 8
    assert [graph for _, graph in calls] == [gradient == "model" and i in (0, 3) for i in range(8)]
    scale = [math.hypot(1 - s, s) if family == "flux" else math.hypot(1, s) for s in sigmas[1:7].tolist()]
    for k, (displacement, _) in enumerate(displacements):
        expected = displacements[k // 3 * 3][0] * (scale[k] / scale[k // 3 * 3])
        assert torch.allclose(displacement, expected, rtol=1e-4, atol=1e-6)
        assert displacement.square().mean().sqrt().item() == pytest.approx(0.08 * scale[k], 1e-4)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_ancestral"])
def test_a_kept_step_moves_the_state_exactly(tools, models, sampler):
    """Two steps, guided and kept, and a plain one: both displacements are in the third step's state."""
    model = models["sd15"].clone()
    model.set_model_sampler_post_cfg_function(lambda args: 0 * args["denoised"] + args["input"].mean())
    noise, latent, mask = problem("sd15")
    sigmas = schedule(model, sampler, 8)[2:6]
    seen = {}
    for between in ("plain", "keep"):
        wrapped = gradpaint(tools, model, every=2, between=between, fraction=0.7, gradient="x0")
        with recorded(tools.module("gradpaint.method.plan"), "displacement") as displacements:
            states = seen[between] = []
            sample(
                wrapped,
                "sd15",
                sampler,
                sigmas,
                noise,
                latent,
                mask,
                callback=lambda i, x0, x, total, states=states: states.append(x.clone()),
            )
    assert len(displacements) == 2
    assert torch.allclose(seen["keep"][2] - seen["plain"][2], displacements[1][0], atol=1e-4)
