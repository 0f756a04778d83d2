"""The builder of the example workflows. Needs no host."""

import json

import pytest

from scripts.workflows.graph import Graph, stable_id

SEED = {"default": 0, "min": 0, "max": 9, "control_after_generate": True}
INFO = {
    "Source": {
        "input": {"required": {"seed": ["INT", SEED], "kind": [["a", "b"]]}},
        "output": ["IMAGE", "MASK"],
        "output_name": ["IMAGE", "M"],
    },
    "Sink": {
        "input": {
            "required": {"image": ["IMAGE", {}], "name": ["STRING", {"default": "x"}]},
            "optional": {"mask": ["MASK", {}]},
        },
        "output": [],
        "output_name": [],
    },
    "Loader": {"input": {"required": {"file": [["there.safetensors"]]}}, "output": [], "output_name": []},
}


def small_graph() -> dict:
    g = Graph("test", INFO)
    g.at(0, 0, "Left")
    source = g.add("Source", seed=3, control="randomize")
    g.at(1, 0, "Right")
    g.add("Sink", image=source["IMAGE"])
    return g.build()


def test_the_same_calls_give_the_same_workflow():
    assert json.dumps(small_graph()) == json.dumps(small_graph())
    assert small_graph()["id"] == stable_id("test") != stable_id("other")


def test_nodes_links_and_values():
    workflow = small_graph()
    source, sink = workflow["nodes"]
    assert source["widgets_values"] == [3, "randomize", "a"] and sink["widgets_values"] == ["x"]
    assert workflow["links"] == [[1, 1, 0, 2, 0, "IMAGE"]]
    assert source["outputs"][0]["links"] == [1] and source["outputs"][1]["links"] is None
    assert [(s["name"], s["link"]) for s in sink["inputs"]] == [("image", 1), ("mask", None), ("name", None)]
    assert [g["title"] for g in workflow["groups"]] == ["1. Left", "2. Right"]
    assert source["pos"][0] + source["size"][0] < sink["pos"][0]


@pytest.mark.parametrize(
    "type_, given, message",
    [
        ("Gone", {}, "the server has no node Gone"),
        ("Source", {"sead": 1}, "Source has no input sead; it has seed, kind"),
        ("Source", {"seed": 10}, "Source.seed is 10; allowed: 0 to 9"),
        ("Sink", {}, "Sink: nothing for image"),
        ("Source", {"kind": "c"}, "Source.kind is 'c'; allowed"),
        ("Source", {"seed": "1"}, "Source.seed is '1'"),
    ],
)
def test_what_does_not_fit_is_refused(type_, given, message):
    with pytest.raises(ValueError, match=message):
        Graph("test", INFO).add(type_, **given)


def test_files_need_not_be_there():
    assert Graph("test", INFO).add("Loader", file="elsewhere.safetensors").values == ["elsewhere.safetensors"]


def test_unknown_output_is_named():
    with pytest.raises(ValueError, match="Source has the outputs"):
        Graph("test", INFO).add("Source")["LATENT"]
