"""The paper's methods on the host's MODEL: what they keep, what they cost, and that they are the library's."""

import importlib

import pytest
import torch
import zoo
from sampling import in_model_units, known_part, problem, sample, schedule

from gradpaint.guided_diffusion import load_denoiser
from gradpaint.sampling import run as library_run
from gradpaint.sampling.methods import METHODS

COSTS = {  # 8 steps: evaluations, backward passes; RePaint with 3 resamplings of 4 steps
    "combine_image": (8, 0),
    "combine_noisy": (8, 0),
    "repaint": (8 + 2 * 4, 0),
    "mcg": (8, 8),
    "dps": (8, 8),
    "gradpaint_fast": (8, 4),
    "gradpaint_full": (8, 8),
}


@pytest.fixture(scope="module")
def methods(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.sampling.methods")


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def models(pack, zoo_folder):
    return {family: zoo.build(family, pack, zoo_folder) for family in ("sd15", "flux", "guided_diffusion")}


def patched(methods, model, method, records=None, **options):
    return methods.apply_method(
        model, method, resamplings=3, jump_length=4, **options, on_record=None if records is None else records.append
    )


@pytest.mark.parametrize("method", COSTS)
@pytest.mark.parametrize("family, sampler", [("sd15", "euler_ancestral"), ("flux", "euler")])
def test_known_part_cost_and_the_callers_model(methods, models, family, sampler, method):
    model, records, steps = models[family], [], []
    noise, latent, mask = problem(family)
    sigmas, options = schedule(model, sampler, 8), repr(model.model_options)
    out = sample(
        patched(methods, model, method, records),
        family,
        sampler,
        sigmas,
        noise,
        latent,
        mask,
        callback=lambda i, x0_hat, x, total: steps.append((i, total)),
    )
    known = known_part(mask, latent)
    assert torch.allclose(out[known], in_model_units(model, latent)[known], atol=1e-6) and out.isfinite().all()
    (record,) = records
    assert (record.evaluations, record.backwards) == COSTS[method]
    assert steps == [(i, record.evaluations) for i in range(record.evaluations)]
    assert repr(model.model_options) == options and not model.wrappers.get("sampler_sample")


@pytest.mark.parametrize("method", ["combine_noisy", "repaint", "mcg", "dps"])
def test_nothing_leaks_from_under_the_hole(methods, models, method):
    noise, latent, mask = problem("sd15")
    model = patched(methods, models["sd15"], method)
    sigmas = schedule(model, "euler", 8)
    other = torch.where(mask > 0, torch.full_like(latent, 5.0), latent)
    assert torch.equal(*(sample(model, "sd15", "euler", sigmas, noise, z, mask) for z in (latent, other)))


class Drawn:
    """The noise that a method adds itself, replaced: host and library draw it from different seeds."""

    def __init__(self, pack, monkeypatch, shape):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(9))
        host = lambda name: importlib.import_module(f"{pack.__name__}.nodes.host.sampling.{name}")
        monkeypatch.setattr(host("run").GuidedRun, "_draw", lambda self: noise)
        monkeypatch.setattr(host("stretches"), "_draw", lambda like, generator: noise)
        prepare = library_run.prepare
        monkeypatch.setattr(library_run, "prepare", lambda *a: prepare(*a)._replace(draw=lambda: noise))


@pytest.mark.parametrize("method", ["combine_image", "combine_noisy", "dps", "mcg", "repaint"])
def test_host_and_library_agree(pack, methods, models, zoo_folder, monkeypatch, method):
    """The library's ddim is the host's euler."""
    family, model, options = "guided_diffusion", models["guided_diffusion"], {}
    noise, latent, mask = problem(family)
    Drawn(pack, monkeypatch, latent.shape)
    if method == "repaint":
        options = {"resamplings": 3, "jump_length": 4}
    sigmas = schedule(model, "euler", 8)
    denoiser = load_denoiser(zoo_folder / "tiny0.safetensors", num_head_channels=32)
    ours = METHODS[method].run(denoiser, latent, mask, sigmas=sigmas, noise=noise, sampler="ddim", **options).image
    theirs = sample(patched(methods, model, method), family, "euler", sigmas, noise, latent, mask)
    assert (ours - theirs).abs().max() < 1e-3
    assert (ours - sample(model, family, "euler", sigmas, noise, latent, mask)).abs().max() > 0.02  # no mean feat


@pytest.mark.parametrize("method", ["combine_noisy", "mcg", "repaint"])
@pytest.mark.parametrize("sampler", ["uni_pc", "dpm_adaptive"])
def test_samplers_whose_state_is_out_of_reach(methods, models, method, sampler):
    noise, latent, mask = problem("sd15")
    sigmas = schedule(models["sd15"], sampler, 4)
    name = sampler.replace("uni_pc", "unipc")  # the host's function is called so
    with pytest.raises(ValueError, match=f"can't be reached in {name}.*use another sampler"):
        sample(patched(methods, models["sd15"], method), "sd15", sampler, sigmas, noise, latent, mask)


@pytest.mark.parametrize(
    "method, sampler",
    [("dps", "uni_pc"), ("dps", "dpm_adaptive"), ("mcg", "dpmpp_2m"), ("repaint", "heun"), ("repaint", "dpmpp_2m_sde")],
)
def test_other_samplers(methods, models, method, sampler):
    noise, latent, mask = problem("sd15")
    sigmas = schedule(models["sd15"], sampler, 6)
    out = sample(patched(methods, models["sd15"], method), "sd15", sampler, sigmas, noise, latent, mask)
    known = known_part(mask, latent)
    assert torch.allclose(out[known], in_model_units(models["sd15"], latent)[known], atol=1e-6)
    assert out.isfinite().all()


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_states_of_a_known_image_have_their_noise_level(pack, methods, models, family):
    """With a model that answers with the image itself, every state is a*x0 + b*noise with noise of spread 1."""
    latent = torch.rand(zoo.SHAPES[family][:2] + (32, 32), generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    model, seen, real = models[family].clone(), [], []
    truth = in_model_units(model, latent)

    def answer(args):
        seen.append((float(args["sigma"].flatten()[0]), args["input"].clone()))
        return truth.clone()

    model.set_model_sampler_post_cfg_function(answer)
    sigmas = schedule(model, "euler", 8)
    guided = methods.apply_method(model, "repaint", resamplings=3, jump_length=2)
    sample(guided, family, "euler", sigmas, noise, latent, mask, callback=lambda *step: real.append(len(seen)))
    seen = [seen[i - 1] for i in real]  # without the dry runs'
    scaling = model.model.model_sampling.noise_scaling
    levels = [level for level, _ in seen]
    assert sorted(set(levels), reverse=True) == pytest.approx(sigmas[:-1].tolist()) and len(levels) == 8 + 2 * 6
    for level, x in seen[1:]:
        at = torch.tensor([level])
        b = float(scaling(at, torch.ones(1), torch.zeros(1)))
        eps = (x - scaling(at, torch.zeros_like(truth), truth)) / b
        if level < max(levels):  # the first level's hole was not made from the image
            assert eps[..., :16].std().item() == pytest.approx(1, abs=0.08), level
        assert eps[..., 16:].std().item() == pytest.approx(1, abs=0.06), level


def test_every_stretch_has_noise_of_its_own(pack, methods, models, monkeypatch):
    wrapper = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.wrapper").GradPaintWrapper
    sample_one, seeds = wrapper.sample, []
    monkeypatch.setattr(
        wrapper,
        "sample",
        lambda self, call, entry: seeds.append(call.extra_args["seed"]) or sample_one(self, call, entry),
    )
    noise, latent, mask = problem("sd15")
    sigmas = schedule(models["sd15"], "euler_ancestral", 8)
    sample(patched(methods, models["sd15"], "repaint"), "sd15", "euler_ancestral", sigmas, noise, latent, mask, seed=11)
    assert seeds[0] == 11 and len(set(seeds)) == len(seeds) == 3


def test_repaint_can_be_cancelled(methods, models):
    import comfy.model_management

    noise, latent, mask = problem("sd15")
    steps = []

    def stop(i, x0_hat, x, total):
        steps.append(i)
        if i == 9:  # in the second stretch
            comfy.model_management.interrupt_current_processing()

    model = models["sd15"]
    sigmas = schedule(model, "euler", 8)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patched(methods, model, "repaint"), "sd15", "euler", sigmas, noise, latent, mask, callback=stop)
    assert steps == list(range(10))


def test_without_a_mask_it_is_a_plain_run(methods, models):
    noise, latent, _ = problem("sd15")
    sigmas = schedule(models["sd15"], "euler", 3)
    plain = sample(models["sd15"], "sd15", "euler", sigmas, noise, latent)
    for method in COSTS:
        assert torch.equal(
            sample(patched(methods, models["sd15"], method), "sd15", "euler", sigmas, noise, latent), plain
        )


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("magic", {}, "method is 'magic'.*combine_image"),
        ("copy", {}, "method is 'copy'"),
        ("repaint", {"resamplings": 0}, "resamplings is 0"),
        ("mcg", {"step": -1.0}, "step is -1.0"),
        ("dps", {"zeta": float("nan")}, "zeta is nan"),
    ],
)
def test_bad_input_is_named(methods, models, method, options, message):
    with pytest.raises(ValueError, match=message):
        methods.apply_method(models["sd15"], method, **options)


def test_the_node_patches_the_model(pack_nodes, models):
    node = pack_nodes["GradPaintInpaintMethod"]
    given = {item.id: item.default for item in node.GET_SCHEMA().inputs if hasattr(item, "default")}
    (patched_model,) = node.execute(models["sd15"], **{**given, "method": "repaint", "resamplings": 2}).args
    (wrapper,) = patched_model.wrappers["sampler_sample"]["gradpaint"]
    assert (wrapper.method.resamplings, wrapper.method.jump_length) == (2, 10)
    assert not models["sd15"].wrappers.get("sampler_sample")
