"""Patches that remember something, when blocks and steps run a second time."""

import importlib

import pytest
import torch
import zoo
from live_memory import LiveMemory
from sampling import problem, sample, schedule
from torch.nn import Linear


def stateful_patches():
    """(patch, its state) for each way of remembering: the n-th call scales k by 1 + n / 10. `random` draws numbers."""

    def closure():
        count = 0

        def patch(q, k, v, extra_options=None):
            nonlocal count
            count += 1
            return q, k * (1 + count / 10), v

        return patch, lambda: count

    def attribute():
        def patch(q, k, v, extra_options=None):
            patch.count += 1
            return q, k * (1 + patch.count / 10), v

        patch.count = 0
        return patch, lambda: patch.count

    class Method:
        def __init__(self):
            self.state = {"seen": []}

        def patch(self, q, k, v, extra_options=None):
            self.state["seen"].append(k.detach().mean())
            return q, k * (1 + len(self.state["seen"]) / 10), v

    class Callable(Method):
        __call__ = Method.patch

    def random(q, k, v, extra_options=None):
        return q, k * (1 + torch.rand(()) / 10), v

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.calls, self.layer = 0, Linear(2, 2)

        def forward(self, q, k, v, extra_options=None):
            self.calls += 1
            return q, k * (1 + self.calls / 10), v

    method, instance, network = Method(), Callable(), Network()
    return {
        "module": (network, lambda: network.calls),
        "random": (random, lambda: torch.rand(3).tolist()),
        "closure": closure(),
        "attribute": attribute(),
        "method": (method.patch, lambda: [float(t) for t in method.state["seen"]]),
        "callable": (instance, lambda: [float(t) for t in instance.state["seen"]]),
    }


def test_patches_that_count_their_calls(pack, tmp_path):
    results, peaks = [], []
    for mode in ("fastest", "low memory", "auto"):
        patches = stateful_patches()
        limit = sum(peaks) / 2 if mode == "auto" else float("inf")  # the first step is repeated
        picture, memory = patched_run(pack, tmp_path, mode, [patch for patch, _ in patches.values()], limit)
        results.append((picture, {kind: state() for kind, (_, state) in patches.items()}))
        peaks.append(memory.peak)
        assert bool(memory.failures) == (mode == "auto")
    assert all(torch.equal(picture, results[0][0]) for picture, _ in results)
    assert results[0][1]["closure"] == results[0][1]["module"] > 0
    assert results[1][1] == results[0][1] == results[2][1]  # one call per attention layer, as if nothing had run twice


def patched_run(pack, folder, mode, patches, limit):
    guidance = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.wrapper")
    device_memory = importlib.import_module(f"{pack.__name__}.nodes.host.memory.device_memory")
    model = zoo.build("sd15", pack, folder).clone()
    for patch in patches:
        model.set_model_attn1_patch(patch)
    guided = guidance.apply_gradpaint(
        model, pack.gradpaint.method.settings.GuidanceSettings(), memory=guidance.MemorySettings(mode)
    )
    noise, latent, mask = problem("sd15")
    memory = LiveMemory(limit)
    torch.manual_seed(0)
    with memory, pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(device_memory, "free_memory", lambda model, device: 2**60)
        picture = sample(guided, "sd15", "euler", schedule(model, "euler", 3), noise, latent, mask)
    return picture, memory
