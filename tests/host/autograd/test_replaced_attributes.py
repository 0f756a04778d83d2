"""Attributes put on single objects: the object is as it was afterwards, whatever happens in between."""

import importlib

import pytest


@pytest.fixture
def replaced(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.autograd.replaced_attributes").ReplacedAttributes()


class Layer:
    def forward(self):
        return "class"


def test_only_the_instance_changes(replaced):
    layer, other = Layer(), Layer()
    with replaced:
        replaced.replace(layer, "forward", lambda: "ours")
        assert layer.forward() == "ours" and other.forward() == "class" and replaced.owners() == [layer]
    assert layer.forward() == "class" and vars(layer) == {} and replaced.owners() == []


def test_an_attribute_of_the_instance_comes_back(replaced):
    layer, theirs = Layer(), lambda: "theirs"
    layer.forward, layer.none = theirs, None
    with replaced:
        for value in ("first", "second"):
            replaced.replace(layer, "forward", lambda value=value: value)
        replaced.replace(layer, "none", 1)
        assert layer.forward() == "second" and layer.none == 1
    assert vars(layer) == {"forward": theirs, "none": None}


def test_after_an_error_and_again(replaced):
    layer = Layer()
    for _ in range(2):
        with pytest.raises(InterruptedError), replaced:
            replaced.replace(layer, "forward", lambda: "ours")
            assert layer.forward() == "ours"
            raise InterruptedError
        assert vars(layer) == {}


def test_what_was_removed_meanwhile_stays_removed(replaced):
    layer = Layer()
    with replaced:
        replaced.replace(layer, "forward", lambda: "ours")
        del layer.forward
    assert vars(layer) == {}
