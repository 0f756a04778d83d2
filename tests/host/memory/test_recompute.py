"""Recomputed blocks: what they may do with their arguments and results, and which can't be recomputed."""

import importlib
import threading

import pytest
import torch
from block_chains import KINDS, Chain, Convolutions, Mlp, Random, Unsteady, UnsteadyGraph, WritesWhatItSaved, plain_call


@pytest.fixture(scope="module")
def modules(pack):
    names = dict(
        autograd="autograd.bridge",
        checkpoint="memory.checkpoint",
        device_memory="memory.device_memory",
        ledger="memory.ledger",
    )
    host = {name: importlib.import_module(f"{pack.__name__}.nodes.host.{path}") for name, path in names.items()}
    return type("Modules", (), host)


def chain_gradients(modules, kind, call, store=None, in_place=False):
    """Output and gradient by plain autograd and twice with recomputed blocks, and the blocks."""
    network = Chain(kind, call)
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))

    def gradient():
        torch.manual_seed(3)
        leaf = x.clone().requires_grad_()
        out = network(leaf)
        return out.detach().clone(), torch.autograd.grad((out * out).sum(), leaf)[0], torch.rand(3)

    results = []
    with torch.autograd.graph.allow_mutation_on_saved_tensors() if in_place else torch.enable_grad():
        results.append(gradient())
    checkpoints = modules.checkpoint.Checkpoints(torch.device("cpu"))
    with checkpoints.installed([network]):
        for _ in range(2):
            with checkpoints.recording(modules.ledger.Ledger(), store):
                results.append(gradient())
        blocks = list(checkpoints.blocks)
    assert not any("forward" in vars(module) for module in network.modules())
    return results, blocks


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_blocks_may_change_anything(modules, name, elsewhere):
    kind, call = KINDS[name]
    # Plain autograd rejects some of it; then the expected gradient comes from PyTorch's own workaround.
    results, blocks = chain_gradients(
        modules, kind, call, modules.device_memory.to_host if elsewhere else None, in_place="written afterwards" in name
    )
    for result in results[1:]:
        for value, expected in zip(result, results[0]):  # the third: the random numbers that come next
            assert torch.equal(value, expected)
    assert len(blocks) == 4 and all(block.saved and not block.broken for block in blocks)
    assert all(block.written for block in blocks) == name.startswith("input written")


def test_a_block_may_overwrite_what_it_saved(modules):
    results, blocks = chain_gradients(modules, WritesWhatItSaved, plain_call, in_place=True)
    assert all(torch.equal(results[1][i], results[0][i]) and torch.equal(results[2][i], results[0][i]) for i in (0, 1))
    assert all(block.overwritten for block in blocks)


def test_it_saves_memory_and_counts_it(modules):
    network = Chain(Mlp, plain_call, count=8)
    x = torch.randn(64, 5, 6, requires_grad=True)
    checkpoints, ledger = modules.checkpoint.Checkpoints(torch.device("cpu")), modules.ledger.Ledger()
    with checkpoints.installed([network]), checkpoints.recording(ledger):
        out = network(x)
        assert ledger.live == 8 * 64 * 5 * 6 * 4  # the inputs, no more
        torch.autograd.grad(out.sum(), x)
        assert ledger.live == 0
        one = checkpoints.blocks[0]
        assert ledger.peak == 8 * 64 * 5 * 6 * 4 + one.saved
        # The gelu's input, and two weights, which a plain nn.Linear saves.
        assert one.saved == one.largest == 4 * (64 * 5 * 24 + 2 * 24 * 6) and one.inputs == 64 * 5 * 6 * 4


def test_backward_in_another_thread(modules):
    """As on a GPU, where it runs in one of PyTorch's threads, without the caller's modes."""
    network, x = Chain(Random, plain_call), torch.randn(2, 5, 6, requires_grad=True)

    def gradient():
        torch.manual_seed(3)
        with torch.inference_mode(), torch.inference_mode(False), torch.enable_grad():
            out = network(x)
            grads = []
            thread = threading.Thread(target=lambda: grads.extend(torch.autograd.grad(out.sum(), x)))
            thread.start()
            thread.join()
        return grads[0]

    expected = gradient()
    checkpoints = modules.checkpoint.Checkpoints(torch.device("cpu"))
    with checkpoints.installed([network]), checkpoints.recording(modules.ledger.Ledger()):
        assert torch.equal(gradient(), expected)
        assert all(block.saved for block in checkpoints.blocks)


def test_convolutions_run_once(modules, monkeypatch):
    network = Chain(Convolutions, plain_call, count=3)
    ran = []
    convolution = torch.nn.functional.conv2d

    def counted(x, weight, *args):
        ran.extend(name for name, module in network.named_modules() if getattr(module, "weight", None) is weight)
        return convolution(x, weight, *args)

    monkeypatch.setattr(torch.nn.functional, "conv2d", counted)
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    checkpoints, ledger = modules.checkpoint.Checkpoints(torch.device("cpu")), modules.ledger.Ledger()
    with modules.autograd.differentiable([network]):
        out = network(x)
        expected = torch.autograd.grad((out * out).sum(), x)[0]
        with checkpoints.installed([network]):
            for store, again in ((None, 1), (modules.device_memory.to_host, 4)):
                ran.clear()
                with checkpoints.recording(ledger, store):
                    out = network(x)
                    grad = torch.autograd.grad((out * out).sum(), x)[0]
                assert torch.equal(grad, expected)
                # The block's input, and two results of `twice` and one of `first`: `written` has been overwritten.
                assert checkpoints.blocks[0].inputs == x.numel() * 4 * (4 if store is None else 1)
                assert len(ran) == 3 * (5 + again) and all(not name.endswith("last") for name in ran[15:])
    assert ledger.live == 0


# ---- blocks that can't be recomputed


@pytest.mark.parametrize("kind", [Unsteady, UnsteadyGraph])
def test_a_block_that_changes_is_given_up(modules, kind, caplog):
    network = Chain(kind, plain_call)
    x = torch.randn(2, 5, 6, requires_grad=True)
    checkpoints = modules.checkpoint.Checkpoints(torch.device("cpu"))
    with checkpoints.installed([network]):
        for _ in range(9):  # a block may hide behind another one
            for block in network.layers:
                block.used.clear()
            try:
                with checkpoints.recording(modules.ledger.Ledger()):
                    out = network(x)
                    grad = torch.autograd.grad(out.sum(), x)[0]
                break
            except modules.checkpoint.StepAgain:
                continue
        broken = [block.name for block in checkpoints.blocks if block.broken]
    lines = [record.getMessage() for record in caplog.records if "can't be checkpointed" in record.getMessage()]
    assert broken and len(lines) == len(broken)
    for block in network.layers:
        block.flag = iter(block.used[:1])  # what the last forward pass used
    assert torch.equal(torch.autograd.grad(network(x).sum(), x)[0], grad)


def test_blocks_run_again_with_the_weights_of_then(modules):
    class Groups:
        current, asked = "first", []

        def use(self, group):
            self.current = group
            self.asked.append(group)

    groups, network, x = Groups(), Chain(Mlp, plain_call), torch.randn(2, 5, 6, requires_grad=True)
    checkpoints = modules.checkpoint.Checkpoints(torch.device("cpu"))
    with checkpoints.installed([network], groups), checkpoints.recording(modules.ledger.Ledger()):
        out = network(x)
        groups.current = "second"
        out = out + network(x)
        torch.autograd.grad(out.sum(), x)
    assert groups.asked == ["first"]
