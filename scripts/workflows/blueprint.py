"""The subgraph blueprint: the whole inpaint chain as one node, in the format of ComfyUI's own blueprints."""

from __future__ import annotations

from collections.abc import Mapping

from .chain import decode_and_composite, encode
from .graph import Graph, Node, Out, stable_id

NAME = "GradPaint Inpaint"
INPUTS = (
    ("model", "MODEL"),
    ("positive", "CONDITIONING"),
    ("negative", "CONDITIONING"),
    ("vae", "VAE"),
    ("image", "IMAGE"),
    ("mask", "MASK"),
)
INPUT_ID, OUTPUT_ID = -10, -20  # the frontend's ids of a subgraph's two ends
SHOWN = {  # widgets of the chain that the subgraph's node shows
    "GradPaintEncode": ("masked_content", "invert_mask", "grow", "area", "target_size"),
    "GradPaintKSampler": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "strength"),
    "GradPaintComposite": ("blend", "colour_match"),
}


def build(info: Mapping) -> dict:
    g = Graph(NAME, info)
    ends = Node(INPUT_ID, "inputs", (0, 0), (120, 160), list(INPUTS), [], [], [])
    given = {name: Out(ends, i) for i, (name, _) in enumerate(INPUTS)}
    g.at(0)
    encoded = encode(g, given["image"], given["mask"], given["vae"])
    g.at(1)
    sampled = g.add(
        "GradPaintKSampler",
        latent_image=encoded["LATENT"],
        wide=320,
        control="randomize",
        **{name: given[name] for name in ("model", "positive", "negative")},
    )
    g.at(2)
    done = decode_and_composite(g, sampled["LATENT"], given["vae"], encoded)
    return _file(g, done["IMAGE"])


def _file(g: Graph, result: Out) -> dict:
    subgraph = _definition(g, result)
    shown = [[str(node.id), name] for node in g.nodes for name in SHOWN.get(node.type, ())]
    node = {
        "id": len(g.nodes) + 1,
        "type": subgraph["id"],
        "pos": [0, 0],
        "size": [340, 470],
        "flags": {},
        "order": 0,
        "mode": 0,
        "title": NAME,
        "inputs": [{"localized_name": name, "name": name, "type": kind, "link": None} for name, kind in INPUTS],
        "outputs": [{"localized_name": "IMAGE", "name": "IMAGE", "type": "IMAGE", "links": []}],
        "properties": {"proxyWidgets": shown, "cnr_id": "gradpaint", "ver": "0.1.0"},
        "widgets_values": [],
    }
    return {
        "id": stable_id(f"{NAME} file"),
        "revision": 0,
        "last_node_id": node["id"],
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [subgraph]},
        "extra": {},
    }


def _definition(g: Graph, result: Out) -> dict:
    parts = g.parts()
    last = len(parts["links"]) + 1
    links = [
        dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link))
        for link in [*parts["links"], [last, result.node.id, result.slot, OUTPUT_ID, 0, "IMAGE"]]
    ]
    for node in parts["nodes"]:
        if node["id"] == result.node.id:
            output = node["outputs"][result.slot]
            output["links"] = [*(output["links"] or []), last]
    right = max(n["pos"][0] + n["size"][0] for n in parts["nodes"])
    inputs = [
        {
            "id": stable_id(f"{NAME} {name}"),
            "name": name,
            "type": kind,
            "localized_name": name,
            "linkIds": [x["id"] for x in links if x["origin_id"] == INPUT_ID and x["origin_slot"] == i],
            "pos": [-120, 60 + 20 * i],
        }
        for i, (name, kind) in enumerate(INPUTS)
    ]
    outputs = [
        {
            "id": stable_id(f"{NAME} result"),
            "name": "IMAGE",
            "type": "IMAGE",
            "localized_name": "IMAGE",
            "linkIds": [last],
            "pos": [right + 120, 60],
        }
    ]
    return {
        "id": stable_id(f"{NAME} subgraph"),
        "version": 1,
        "name": NAME,
        "revision": 0,
        "config": {},
        "state": {"lastGroupId": 0, "lastNodeId": len(g.nodes), "lastLinkId": last, "lastRerouteId": 0},
        "inputNode": {"id": INPUT_ID, "bounding": [-220, 40, 120, 40 + 20 * len(INPUTS)]},
        "outputNode": {"id": OUTPUT_ID, "bounding": [right + 100, 40, 120, 60]},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": parts["nodes"],
        "groups": [],
        "links": links,
        "extra": {},
        "category": "Image generation and editing/Inpaint image",
        "description": "Inpaints with any model, without training. Takes an image and a mask and returns an image of "
        "the same size, unchanged outside the mask and its blending band.",
    }
