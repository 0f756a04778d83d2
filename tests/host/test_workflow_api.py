"""The converter that the server test uses. Needs no host."""
import pytest
from workflow_api import to_prompt

INFO = {
    "Source": {"input": {"required": {"seed": ["INT", {"control_after_generate": True}], "kind": [["a", "b"], {}]}}},
    "Sink": {"input": {"required": {"image": ["IMAGE", {}], "name": ["STRING", {}]},
                       "optional": {"mask": ["MASK", {}], "scale": ["FLOAT", {}]}}},
}


def workflow():
    return {
        "links": [[7, 1, 0, 2, 0, "IMAGE"]],
        "nodes": [
            {"id": 1, "type": "Source", "widgets_values": [3, "fixed", "b"]},
            {"id": 2, "type": "Sink", "widgets_values": ["out", 0.5],
             "inputs": [{"name": "image", "link": 7}, {"name": "mask", "link": None}]},
            {"id": 3, "type": "MarkdownNote", "widgets_values": ["hello"]},
        ],
    }


def test_values_and_links():
    assert to_prompt(workflow(), INFO) == {
        "1": {"class_type": "Source", "inputs": {"seed": 3, "kind": "b"}},
        "2": {"class_type": "Sink", "inputs": {"image": ["1", 0], "name": "out", "scale": 0.5}},
    }


@pytest.mark.parametrize("index, values, message", [
    (0, [3, "b"], "followed by 'b'"), (0, [3, "fixed"], "no value for kind"),
    (1, ["out", 0.5, 1], r"\[1\] are left over"),
])
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
