"""GradPaint Sampler with each kind of GUIDER: exact gradients, a loss that falls, a known part that is kept."""

import entry_points
import pytest
import torch
import zoo
from entry_points import case
from guided_runs import gradients

KINDS = ("basic", "cfg", "dual", "dual_nested", "dual_model", "perp_neg", "perturbed_attention", "self_attention")
OF_UNETS = ("perturbed_attention", "self_attention")


@pytest.fixture(scope="module")
def models(pack):
    return {"sd15": zoo.sd15(0), "flux": zoo.flux(0), "another": zoo.flux(5)}


@pytest.fixture(params=KINDS)
def family(request) -> str:
    return "sd15" if request.param in OF_UNETS else "flux"


@pytest.fixture
def guider(request, comfy_host, family, models):
    """As the host's own nodes make it."""
    import comfy_extras.nodes_custom_sampler as nodes
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance
    from comfy_extras.nodes_perpneg import PerpNegGuider
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    a, b, c = (zoo.conditioning(family, seed=seed) for seed in (1, 2, 3))
    model, kind = models[family], request.node.callspec.params["family"]
    if kind == "dual_model" and not hasattr(nodes, "DualModelGuider"):
        pytest.skip("this host has no DualModelGuider")
    with torch.inference_mode():
        made = {
            "basic": lambda: nodes.BasicGuider.execute(model, a),
            "cfg": lambda: nodes.CFGGuider.execute(model, a, b, 4.0),
            "dual": lambda: nodes.DualCFGGuider.execute(model, a, b, c, 4.0, 2.0, "regular"),
            "dual_nested": lambda: nodes.DualCFGGuider.execute(model, a, b, c, 4.0, 2.0, "nested"),
            "dual_model": lambda: nodes.DualModelGuider.execute(model, a, 3.0, models["another"], b),
            "perp_neg": lambda: PerpNegGuider.execute(model, a, b, c, 4.0, 1.0),
            "perturbed_attention": lambda: nodes.CFGGuider.execute(
                PerturbedAttentionGuidance.execute(model, 3.0).args[0], a, b, 3.0
            ),
            "self_attention": lambda: nodes.CFGGuider.execute(
                SelfAttentionGuidance.execute(model, 0.5, 2.0).args[0], a, b, 3.0
            ),
        }[kind]()
    return made.args[0]


class GivenNoise:
    seed = 3

    def __init__(self, noise):
        self.noise = noise

    def generate_noise(self, latent):
        return self.noise


def run(problem, guider, sampler, noise, sigmas):
    import comfy_extras.nodes_custom_sampler as nodes

    with torch.inference_mode():
        return nodes.SamplerCustomAdvanced.execute(GivenNoise(noise), guider, sampler, sigmas, problem.masked).args[0]


def test_gradient_against_finite_differences(tools, pack, pack_nodes, models, family, guider):
    """Of the masked MSE, through all that the guider makes of the model; the state is a * latent + sigma * noise."""
    sigma = 2.0 if family == "sd15" else 0.6
    full = pack.gradpaint.method.settings.GuideSchedule.full()
    off = pack.gradpaint.method.settings.AlignmentSettings(lambda_al=0.0)
    problem = case(family, models[family], settings={"schedule": full, "alignment": off})
    sigmas, generator = torch.tensor([sigma, 0.0]), torch.Generator().manual_seed(4)
    noise = torch.randn(problem.latent["samples"].shape, generator=generator)
    sampler, record = entry_points.sampler(pack_nodes, problem)
    with gradients(tools) as found:
        run(problem, guider, sampler, noise, sigmas)
    (found,) = found
    gradient = found / found.square().mean().sqrt() * float(record.last.guided[0].gradient_rms)
    other = torch.randn(noise.shape, generator=generator)
    direction = gradient / gradient.norm() + other / other.norm()

    def loss(shift: float) -> float:
        measure, at = entry_points.sampler(pack_nodes, problem, gradient="x0")
        run(problem, guider, measure, noise + shift * direction, sigmas)
        return float(at.last.losses("mse")[0])

    h = 0.05
    slope = (loss(h) - loss(-h)) / (2 * h)
    assert slope == pytest.approx(sigma * float((gradient * direction).sum()), rel=0.01)


def test_guidance_lowers_the_loss_and_keeps_what_is_known(pack, pack_nodes, models, family, guider):
    full = pack.gradpaint.method.settings.GuideSchedule.full()
    problem = case(family, models[family], steps=4, settings={"schedule": full})
    known = (problem.mask == 0)[:, None].expand_as(problem.latent["samples"])
    late = {}
    for alpha in (1e-9, 0.05):
        sampler, record = entry_points.sampler(pack_nodes, problem, alpha=alpha)
        out = entry_points.custom_advanced(problem, guider, sampler)[0]["samples"]
        assert torch.allclose(out[known], problem.latent["samples"][known], atol=1e-6) and out.isfinite().all()
        assert record.last.skipped == 0 and record.last.backwards == 4
        late[alpha] = float(sum(record.last.losses("mse")[2:]))
    assert late[0.05] < 0.98 * late[1e-9]
