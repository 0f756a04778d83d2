"""Which modules of a network are blocks."""

import importlib

import pytest
import torch
from block_chains import Mlp
from torch.nn import Linear


@pytest.fixture(scope="module")
def modules(pack):
    names = dict(blocks="memory.blocks")
    host = {name: importlib.import_module(f"{pack.__name__}.nodes.host.{path}") for name, path in names.items()}
    return type("Modules", (), host)


def names(modules, network):
    return [name for name, _ in modules.blocks.find_blocks([network])]


def test_blocks_are_found_in_lists_of_any_kind(modules):
    nn = torch.nn
    network = nn.Module()
    network.stem = Linear(6, 6)
    network.body = nn.ModuleList([Mlp(), nn.Sequential(Mlp(), Mlp()), nn.ModuleList([Mlp(), Linear(6, 6)])])
    network.named = nn.ModuleDict({"one": Mlp(), "two": nn.Sequential(Linear(6, 6), nn.GELU())})
    network.single = Mlp()
    assert names(modules, network) == ["body.0", "body.1.0", "body.1.1", "body.2.0", "named.one", "named.two"]


def test_a_block_that_holds_the_model_is_not_one(modules):
    nn = torch.nn
    inner = nn.Module()
    inner.stem, inner.layers = Linear(6, 60), nn.ModuleList([Mlp(), Mlp()])
    assert names(modules, nn.Sequential(inner)) == ["0.layers.0", "0.layers.1"]
    assert names(modules, nn.Sequential(Mlp())) == ["0"]
