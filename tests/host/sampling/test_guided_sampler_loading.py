"""GradPaint Sampler does late, during the run, what a patched MODEL does before its models are loaded."""

import importlib

import controls
import entry_points
import loras
import pytest
import torch
import zoo
from comparing import text
from entry_points import case


@pytest.fixture(scope="module")
def models(comfy_host):
    return {"flux": zoo.flux(0)}


def test_cancel_through_the_sampler(pack_nodes, models):
    import comfy.model_management as management

    problem = case("flux", models["flux"])
    sampler, record = entry_points.sampler(pack_nodes, problem)
    before = entry_points.custom(problem, problem.model, sampler)["samples"]
    calls = []

    def cancel(*args):
        calls.append(1)
        if len(calls) == 2:
            raise management.InterruptProcessingException()

    handle = problem.model.model.diffusion_model.register_forward_hook(cancel)
    try:
        with pytest.raises(management.InterruptProcessingException):
            entry_points.custom(problem, problem.model, sampler)
    finally:
        handle.remove()
    assert len(calls) == 2 and record.last.steps == 0
    assert not any("forward" in vars(m) for m in problem.model.model.modules()) and not management.in_training
    assert torch.equal(entry_points.custom(problem, problem.model, sampler)["samples"], before)


def test_the_sampler_asks_for_the_room_that_a_patched_model_asks_for(pack, pack_nodes, models, monkeypatch):
    """The same memory is asked of the host, and the same models are loaded with it."""
    import comfy.model_management as management

    asked = []
    load = management.load_models_gpu
    monkeypatch.setattr(
        management,
        "load_models_gpu",
        lambda models, *args, **kw: asked.append((list(models), kw)) or load(models, *args, **kw),
    )
    problem = case("flux", models["flux"], cfg=2.0)
    entry_points.custom(problem, problem.model, entry_points.plain_sampler(problem))
    entry_points.custom(problem, entry_points.apply(pack_nodes, problem)[0], entry_points.plain_sampler(problem))
    entry_points.custom(problem, problem.model, entry_points.sampler(pack_nodes, problem)[0])
    plain, patched, early, late = (kw for _, kw in asked)
    assert plain == early and patched == late and late["memory_required"] > 3 * plain["memory_required"]
    asked.clear()
    entry_points.custom(problem, problem.model, entry_points.sampler(pack_nodes, problem, gradient="x0")[0])
    assert len(asked) == 1  # nothing to make room for


def test_graph_replay_of_newer_hosts_is_off_during_the_samplers_run(pack_nodes, models, monkeypatch):
    import comfy.cli_args

    problem = case("flux", models["flux"])
    monkeypatch.setattr(comfy.cli_args.args, "disable_comfy_compiler", False, raising=False)
    seen = []
    handle = problem.model.model.diffusion_model.register_forward_hook(
        lambda *args: seen.append(comfy.cli_args.args.disable_comfy_compiler)
    )
    try:
        entry_points.custom(problem, problem.model, entry_points.sampler(pack_nodes, problem)[0])
    finally:
        handle.remove()
    assert seen == [True] * 4 and comfy.cli_args.args.disable_comfy_compiler is False


def test_the_sampler_loads_decoders_and_keeps_a_guiders_second_model(pack, pack_nodes, monkeypatch):
    """As an additional model of a patched MODEL would be; afterwards nothing of it is left on either."""
    import comfy.model_management as management
    import comfy_extras.nodes_custom_sampler as nodes
    from tiny_vae import tiny_vae

    if not hasattr(nodes, "DualModelGuider"):
        pytest.skip("this host has no DualModelGuider")
    decoders = importlib.import_module(f"{pack.__name__}.nodes.host.latents.decoders")
    vae, model, second = tiny_vae(), zoo.sd15(0), zoo.sd15(5)
    alignment = decoders.HostAlignment(lambda_al=1.0, space="vae", vae=vae)
    problem = case("sd15", model, steps=2, settings={"alignment": alignment})
    asked, load = [], management.load_models_gpu
    monkeypatch.setattr(
        management,
        "load_models_gpu",
        lambda models, *args, **kw: asked.append(list(models)) or load(models, *args, **kw),
    )

    def run(patched, sampler):
        asked.clear()
        guider = nodes.DualModelGuider.execute(patched, problem.positive, 3.0, second, problem.negative).args[0]
        return entry_points.custom_advanced(problem, guider, sampler)[0]["samples"]

    by_model = run(entry_points.apply(pack_nodes, problem)[0], entry_points.plain_sampler(problem))
    assert any(vae.patcher in models for models in asked)
    by_sampler = run(model, entry_points.sampler(pack_nodes, problem)[0])
    assert torch.equal(by_model, by_sampler)
    assert model in asked[-1] and second in asked[-1] and vae.patcher in asked[-1]
    assert not model.additional_models
    assert not any("forward" in vars(module) for module in vae.first_stage_model.modules())


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_sampler_with_weights_that_live_elsewhere(pack_nodes, monkeypatch, share):
    """Its second load may stream more of the weights than the first."""
    from offload import offloading

    def run():
        problem = case("flux", zoo.flux(0), cfg=2.0)
        return entry_points.custom(problem, problem.model, entry_points.sampler(pack_nodes, problem)[0])["samples"]

    resident = run()
    with offloading(monkeypatch, share) as state:
        assert torch.equal(run(), resident)
    assert state.taken == state.released > 0


def test_the_sampler_with_weights_unloaded_by_its_second_load(pack, pack_nodes, monkeypatch):
    """What the host does where the room asked for is not there: a part of the model goes in the middle of the run."""
    guided_sampler = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.guided_sampler")

    def run():
        problem = case("sd15", zoo.sd15(0), cfg=2.0)
        return entry_points.custom(problem, problem.model, entry_points.sampler(pack_nodes, problem)[0])["samples"]

    expected, freed, load = run(), [], guided_sampler.load_again

    def load_and_unload(guider, *args):
        load(guider, *args)
        patcher = guider.model_patcher
        freed.append(patcher.partially_unload(patcher.offload_device, patcher.model_size() // 2))

    monkeypatch.setattr(guided_sampler, "load_again", load_and_unload)
    assert torch.equal(run(), expected) and freed[0] > 0


@pytest.mark.parametrize(
    "what", ["hook", *(pytest.param(rest, marks=pytest.mark.slow) for rest in ("controlnet", "control_lora", "lora"))]
)
def test_what_comes_with_model_and_conditioning_is_the_same_as_with_a_patched_model(pack_nodes, what):
    """ControlNets, weight hooks and LoRAs are loaded or applied before the sampler's second load, and stay."""
    import comfy.hooks

    def picture(entry_point: str):
        model = zoo.sd15(**controls.CONFIG) if what.startswith("control") else zoo.sd15(0)
        state = loras.lora(model)
        model = loras.loaded(model, state, 0.7) if what == "lora" else model
        problem = case("sd15", model, steps=2, cfg=2.0)
        if what == "hook":
            problem.positive = text(1, hooks=comfy.hooks.create_hook_lora(state, 0.8, 0.0))
        elif what.startswith("control"):
            problem.positive = controls.with_control(text(1), getattr(controls, what)())
        if entry_point == "sampler":
            return entry_points.custom(problem, model, entry_points.sampler(pack_nodes, problem)[0])["samples"]
        patched = entry_points.apply(pack_nodes, problem)[0]
        return entry_points.custom(problem, patched, entry_points.plain_sampler(problem))["samples"]

    assert torch.equal(picture("sampler"), picture("apply"))
