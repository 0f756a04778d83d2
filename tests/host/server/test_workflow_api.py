"""The converter that the server test uses. Needs no host."""

import pytest
from workflow_api import to_prompt

INFO = {
    "Source": {"input": {"required": {"seed": ["INT", {"control_after_generate": True}], "kind": [["a", "b"], {}]}}},
    "Sink": {
        "input": {
            "required": {"image": ["IMAGE", {}], "name": ["STRING", {}]},
            "optional": {"mask": ["MASK", {}], "scale": ["FLOAT", {}]},
        }
    },
}


def workflow():
    return {
        "links": [[7, 1, 0, 2, 0, "IMAGE"]],
        "nodes": [
            {"id": 1, "type": "Source", "widgets_values": [3, "fixed", "b"]},
            {
                "id": 2,
                "type": "Sink",
                "widgets_values": ["out", 0.5],
                "inputs": [{"name": "image", "link": 7}, {"name": "mask", "link": None}],
            },
            {"id": 3, "type": "MarkdownNote", "widgets_values": ["hello"]},
        ],
    }


def test_values_and_links():
    assert to_prompt(workflow(), INFO) == {
        "1": {"class_type": "Source", "inputs": {"seed": 3, "kind": "b"}},
        "2": {"class_type": "Sink", "inputs": {"image": ["1", 0], "name": "out", "scale": 0.5}},
    }


@pytest.mark.parametrize(
    "index, values, message",
    [
        (0, [3, "b"], "followed by 'b'"),
        (0, [3, "fixed"], "no value for kind"),
        (1, ["out", 0.5, 1], r"\[1\] are left over"),
    ],
)
def test_values_that_do_not_fit(index, values, message):
    graph = workflow()
    graph["nodes"][index]["widgets_values"] = values
    with pytest.raises(ValueError, match=message):
        to_prompt(graph, INFO)


def test_values_of_optional_widgets_may_be_missing():
    graph = workflow()
    graph["nodes"][1]["widgets_values"] = ["out"]  # saved before the node had `scale`
    assert to_prompt(graph, INFO)["2"]["inputs"] == {"image": ["1", 0], "name": "out"}


def test_unknown_node_and_missing_link():
    graph = workflow()
    graph["nodes"][1]["inputs"][0]["link"] = None
    with pytest.raises(ValueError, match="nothing for image"):
        to_prompt(graph, INFO)
    graph["nodes"][0]["type"] = "Gone"
    with pytest.raises(ValueError, match="the server has no Gone"):
        to_prompt(graph, INFO)


def with_subgraph():
    """Source -> a subgraph that holds Middle, its mask open -> Sink."""
    inner = {
        "id": 5,
        "type": "Middle",
        "widgets_values": [],
        "inputs": [{"name": "image", "link": 1}, {"name": "mask", "link": 2}],
    }
    definition = {
        "id": "sub",
        "nodes": [inner],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 5, "target_slot": 0, "type": "IMAGE"},
            {"id": 2, "origin_id": -10, "origin_slot": 1, "target_id": 5, "target_slot": 1, "type": "MASK"},
            {"id": 3, "origin_id": 5, "origin_slot": 1, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
        ],
    }
    graph = workflow()
    outer = {"id": 9, "type": "sub", "inputs": [{"name": "image", "link": 7}, {"name": "mask", "link": None}]}
    graph["nodes"].append(outer)
    graph["links"] = [[7, 1, 0, 9, 0, "IMAGE"], [8, 9, 0, 2, 0, "IMAGE"]]
    graph["nodes"][1]["inputs"][0]["link"] = 8
    return {**graph, "definitions": {"subgraphs": [definition]}}


def test_subgraphs_are_unfolded():
    info = {**INFO, "Middle": {"input": {"required": {"image": ["IMAGE", {}]}, "optional": {"mask": ["MASK", {}]}}}}
    graph = with_subgraph()
    assert to_prompt(graph, info) == {
        "1": {"class_type": "Source", "inputs": {"seed": 3, "kind": "b"}},
        "2": {"class_type": "Sink", "inputs": {"image": ["9:5", 1], "name": "out", "scale": 0.5}},
        "9:5": {"class_type": "Middle", "inputs": {"image": ["1", 0]}},
    }
    assert graph == with_subgraph()  # the file's own data is left alone
