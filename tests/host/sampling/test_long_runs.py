"""Many runs in one process, and runs that are cancelled anywhere: nothing is left, the next run is the same."""

import functools
import threading
from typing import NamedTuple

import pytest
import torch
import zoo
from leftovers import changes, control_net, live_tensors, resident_bytes, snapshot
from sampling import problem, sample, schedule

ROUNDS = 8
SHAPES = {"sd15": (1, 4, 8, 8), "flux": (1, 16, 8, 8), "guided_diffusion": (1, 3, 16, 16)}
LEAK = 2**19  # bytes that one run's graph would hold at least


class Setup(NamedTuple):
    family: str
    sampler: str
    cfg: float = 1.0
    controlled: bool = False
    settings: dict = {}
    memory: str = "auto"


SETUPS = {
    "sd15": Setup("sd15", "euler"),
    "controlnet": Setup("sd15", "dpmpp_2m", 3.0, True),
    "cond": Setup("sd15", "uni_pc", 3.0, False, {"gradient": "cond"}),
    "blocks recomputed": Setup("sd15", "euler", 3.0, True, {}, "low memory"),
    "inputs in host memory": Setup("flux", "euler_ancestral", 1.0, False, {}, "lowest memory"),
    "flux": Setup("flux", "euler_ancestral"),
    "pixels": Setup("guided_diffusion", "ddpm"),
}


class Lab:
    """One model per family and one ControlNet, kept for all runs as a user's session keeps them."""

    def __init__(self, tools, pack, folder):
        self.tools, self.memory_settings = tools, pack.gradpaint.method.settings.MemorySettings
        self.models = {family: zoo.build(family, pack, folder) for family in ("sd15", "flux", "guided_diffusion")}
        self.control = control_net()
        self.problems = {family: problem(family, shapes=SHAPES) for family in self.models}

    def conditioning(self, family, seed=1, controlled=False):
        ((text, options),) = zoo.conditioning(family, seed)
        if controlled:
            hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
            options = {
                **options,
                "control": self.control.copy().set_cond_hint(hint, 1.0, (0.0, 1.0)),
                "control_apply_to_uncond": True,
            }
        return [[text, options]]

    @functools.cache  # noqa: B019
    def untouched(self, name):
        """The result of a run that nobody has cancelled."""
        return self.run(name)

    def run(self, name, callback=None, on_record=None):
        """Three steps, two of them guided."""
        family, sampler, cfg, controlled, options, memory = SETUPS[name]
        model = self.models[family]
        guided = self.tools.guidance.apply_gradpaint(
            model,
            self.tools.settings.GuidanceSettings(schedule=self.tools.settings.GuideSchedule(fraction=0.6), **options),
            on_record,
            self.memory_settings(memory),
        )
        noise, latent, mask = self.problems[family]
        return sample(
            guided,
            family,
            sampler,
            schedule(model, sampler, 3),
            noise,
            latent,
            mask,
            cfg=cfg,
            callback=callback,
            conditioning=lambda family, seed=1: self.conditioning(family, seed, controlled),
        )

    def snapshot(self, family="sd15"):
        return snapshot(self.models[family], self.control.control_model)


@pytest.fixture(scope="module")
def lab(tools, pack, tmp_path_factory):
    return Lab(tools, pack, tmp_path_factory.mktemp("zoo"))


def test_more_than_fifty_runs_leave_memory_and_modules_as_they_were(lab):
    first, last = ({name: lab.run(name) for name in SETUPS} for _ in range(2))
    before = {family: lab.snapshot(family) for family in lab.models}
    tensors, resident = live_tensors(), resident_bytes()
    for _ in range(ROUNDS):
        last = {name: lab.run(name) for name in SETUPS}
    assert live_tensors() == tensors
    assert resident_bytes() - resident < ROUNDS * LEAK
    for family in lab.models:
        assert changes(before[family], lab.snapshot(family)) == []
    assert all(torch.equal(first[name], last[name]) for name in SETUPS)


def test_a_single_leaked_tensor_per_run_would_be_seen(lab):
    lab.run("sd15")
    before = live_tensors()
    kept = []
    lab.run("sd15", on_record=kept.append)  # the record of one run: a handful of (1,) tensors
    count, size = live_tensors()
    assert count > before[0] and size > before[1]
    kept.clear()
    assert live_tensors() == before


def test_a_leaked_graph_per_run_would_be_seen(lab, monkeypatch):
    """What a graph has saved is known to no Python object: only the process's memory tells."""
    lab.run("sd15")
    before, kept = resident_bytes(), []
    original, grad = lab.tools.run.GuidedRun.predict_noise, torch.autograd.grad

    def leaky(self, executor, x, *args, **kwargs):
        def keep(*call):
            out = executor(*call)
            kept.append(out.grad_fn) if out.requires_grad else None
            return out

        return original(self, keep, x, *args, **kwargs)

    monkeypatch.setattr(lab.tools.run.GuidedRun, "predict_noise", leaky)
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: grad(*args, **{**kwargs, "retain_graph": True}))
    for _ in range(ROUNDS):
        lab.run("sd15")
    assert len(kept) == 2 * ROUNDS and resident_bytes() - before > ROUNDS * LEAK


@pytest.mark.parametrize("leave", ["forward", "hook", "parameter", "global", "option", "flag"])
def test_a_leftover_of_any_kind_would_be_seen(lab, leave):
    import comfy.model_management
    import comfy.samplers

    before = lab.snapshot()
    model = lab.models["sd15"]
    layer = next(m for m in lab.control.control_model.modules() if isinstance(m, torch.nn.Linear))
    function, parameter, undo = comfy.samplers.calc_cond_batch, layer.weight, []
    if leave == "forward":
        layer.forward = layer.forward
        undo.append(lambda: vars(layer).pop("forward"))
    elif leave == "hook":
        undo.append(layer.register_forward_hook(lambda *args: None).remove)
    elif leave == "parameter":
        layer._parameters["weight"] = torch.nn.Parameter(parameter.clone(), requires_grad=False)
        undo.append(lambda: layer._parameters.update(weight=parameter))
    elif leave == "global":
        comfy.samplers.calc_cond_batch = lambda *args: function(*args)
        undo.append(lambda: setattr(comfy.samplers, "calc_cond_batch", function))
    elif leave == "option":
        model.model_options["transformer_options"]["wrappers"] = {"predict_noise": {"gradpaint": [1]}}
        undo.append(lambda: model.model_options["transformer_options"].pop("wrappers"))
    else:
        comfy.model_management.in_training = True
        undo.append(lambda: setattr(comfy.model_management, "in_training", False))
    try:
        assert len(changes(before, lab.snapshot())) >= 1
    finally:
        undo[0]()
    assert changes(before, lab.snapshot()) == []


# ---- cancel


class Cancel:
    """Interrupts the second evaluation: in a leaf's forward, in its backward, or in the sampler's callback."""

    def __init__(self, where: str, how: str):
        self.where, self.how, self.calls = where, how, 0

    def __call__(self, *args, **kwargs):
        import comfy.model_management as management

        self.calls += 1
        if self.calls != 2:
            return None
        if self.how == "raised":
            raise management.InterruptProcessingException()
        thread = threading.Thread(target=management.interrupt_current_processing)  # as the host's server does it
        thread.start()
        thread.join()

    def install(self, model):
        """Removal function of the hook on a layer in the middle of the network."""
        if self.where == "callback":
            return lambda: None
        layer = model.model.diffusion_model.middle_block[0].in_layers[2]
        if self.where == "forward":
            return layer.register_forward_hook(self).remove

        # On the layer's output: a module's own backward hook would keep the graph that it is interrupted in.
        def watch(module, args, out):
            if out.requires_grad:
                out.register_hook(self)

        return layer.register_forward_hook(watch).remove


@pytest.mark.parametrize("setup", ["sd15", "controlnet", "cond", "blocks recomputed"])
@pytest.mark.parametrize("how", ["raised", "by another thread"])
@pytest.mark.parametrize("where", ["forward", "backward", "callback"])
def test_cancel_leaves_nothing_and_the_next_run_is_the_same(lab, where, how, setup):
    import comfy.model_management as management

    family = SETUPS[setup][0]
    untouched = lab.untouched(setup)
    before = lab.snapshot(family)
    cancel = Cancel(where, how)
    remove = cancel.install(lab.models[family])
    try:
        with pytest.raises(management.InterruptProcessingException):
            lab.run(setup, callback=cancel if where == "callback" else None)
    finally:
        remove()
        management.interrupt_current_processing(False)
    assert cancel.calls == 2  # nothing went on after it
    assert changes(before, lab.snapshot(family)) == []
    assert torch.equal(lab.run(setup), untouched)


def test_memory_of_a_cancelled_run_is_free_again(lab):
    import comfy.model_management as management

    lab.run("sd15")
    tensors, resident = live_tensors(), resident_bytes()
    for where in ("forward", "backward") * (ROUNDS // 2):
        cancel = Cancel(where, "raised")
        remove = cancel.install(lab.models["sd15"])
        try:
            with pytest.raises(management.InterruptProcessingException):
                lab.run("sd15")
        finally:
            remove()
    assert live_tensors() == tensors and resident_bytes() - resident < ROUNDS * LEAK
