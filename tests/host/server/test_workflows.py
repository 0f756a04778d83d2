"""The example workflows and the blueprint: as built, tidy, fitting the host's nodes; run with stand-ins for files."""

from __future__ import annotations

import importlib
import json

import executor
import in_host
import pytest
import standins
from PIL import Image
from workflow_api import to_prompt

from scripts.build_workflows import HOST, built
from scripts.workflows.blueprint import NAME as BLUEPRINT

EXAMPLES = sorted(path.stem for path in (in_host.PACK_ROOT / "example_workflows").glob("*.json"))
TITLE = 30  # height of the bar above a node's position


@pytest.fixture(scope="module")
def host(host_path, comfy_host, pack_nodes, tmp_path_factory):
    """The host's nodes with the extras, this pack's and the stand-in loaders; input and model files that are named."""
    import folder_paths

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy_host, "NODE_CLASS_MAPPINGS", dict(comfy_host.NODE_CLASS_MAPPINGS))
        executor.register(comfy_host, host_path, pack_nodes)
        folder = tmp_path_factory.mktemp("files")
        standins.empty_files(folder / "models")
        for kind in standins.FOLDERS:
            patch.setitem(
                folder_paths.folder_names_and_paths,
                kind,
                ([str(folder / "models" / kind)], folder_paths.supported_pt_extensions),
            )
        folder_paths.filename_list_cache.clear()
        standins.write_inputs(folder / "input")
        patch.setattr(folder_paths, "input_directory", str(folder / "input"))
        comfy_host.NODE_CLASS_MAPPINGS.update(standins.loaders(comfy_host))
        yield comfy_host
    folder_paths.filename_list_cache.clear()


@pytest.fixture(scope="module")
def info(host) -> dict:
    return executor.object_info(host)


def load(name: str) -> dict:
    return json.loads((in_host.PACK_ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))


def blueprint() -> dict:
    return json.loads((in_host.PACK_ROOT / "subgraphs" / f"{BLUEPRINT}.json").read_text(encoding="utf-8"))


def test_files_are_as_built(info):
    version = importlib.import_module("comfyui_version").__version__
    if version != HOST:
        pytest.skip(f"the files are built with ComfyUI {HOST}; this is {version}")
    files = built(info)
    committed = {path: (in_host.PACK_ROOT / path).read_text(encoding="utf-8") for path in files}
    different = [path for path in files if committed[path] != files[path]]
    assert not different, f"run scripts/build_workflows.py; different: {different}"
    assert {f"example_workflows/{name}.json" for name in EXAMPLES} == {p for p in files if p.startswith("example")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_values_and_links_fit(name, info):
    prompt = to_prompt(load(name), info)
    ours = [node["class_type"] for node in prompt.values() if node["class_type"].startswith("GradPaint")]
    assert "GradPaintEncode" in ours and "GradPaintComposite" in ours


@pytest.mark.parametrize("name", EXAMPLES)
def test_tidy(name):
    """No node lies on another, each is wholly in its group or wholly out of it, links go from left to right."""
    workflow = load(name)
    boxes = {
        n["id"]: (n["pos"][0], n["pos"][1] - TITLE, n["pos"][0] + n["size"][0], n["pos"][1] + n["size"][1])
        for n in workflow["nodes"]
    }
    groups = [(x, y, x + w, y + h) for x, y, w, h in (g["bounding"] for g in workflow["groups"])]
    for a, box in boxes.items():
        assert not [b for b, other in boxes.items() if a < b and overlap(box, other)], f"node {a}"
        for group in groups:
            assert inside(box, group) or not overlap(box, group), f"node {a} lies across a group's edge"
    for i, group in enumerate(groups):
        assert not any(overlap(group, other) for other in groups[:i])
    assert all(boxes[source][0] <= boxes[target][0] for _, source, _, target, _, _ in workflow["links"])


TOO_MUCH_FOR_ONE_LOOK = ("gradpaint_compare_methods", "gradpaint_report")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in TOO_MUCH_FOR_ONE_LOOK])
def test_text_is_drawn_when_the_template_opens(name):
    """The frontend fits it into three quarters of the window, and draws no text of less than 8 pixels (of 14)."""
    workflow = load(name)
    boxes = [*(n["pos"] + n["size"] for n in workflow["nodes"]), *(g["bounding"] for g in workflow["groups"])]
    width, height = (max(b[i] + b[i + 2] for b in boxes) - min(b[i] for b in boxes) for i in (0, 1))
    assert 0.75 * min(1920 / width, 1080 / height) >= 8 / 14


def test_groups_are_numbered_in_a_row():
    for name in EXAMPLES:
        titles = [group["title"] for group in load(name)["groups"]]
        assert [title.split(". ")[0] for title in titles] == [str(i + 1) for i in range(len(titles))]


def overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(a, b) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


@pytest.mark.parametrize("name", EXAMPLES)
def test_note_and_thumbnail(name):
    notes = [n for n in load(name)["nodes"] if n["type"] == "MarkdownNote"]
    assert len(notes) == 1 and notes[0]["widgets_values"][0].startswith("# ")
    text = notes[0]["widgets_values"][0]
    for node in load(name)["nodes"]:
        for model in node["properties"].get("models", ()):
            assert model["name"] in node["widgets_values"] and model["name"] in text and model["url"] in text
    with Image.open(in_host.PACK_ROOT / "example_workflows" / f"{name}.jpg") as thumbnail:
        assert thumbnail.format == "JPEG" and 300 <= thumbnail.width <= 500


def test_the_test_finds_a_misplaced_node():
    assert overlap((0, 0, 10, 10), (9, 9, 20, 20)) and not overlap((0, 0, 10, 10), (10, 0, 20, 10))


# ---- run with stand-ins

SINKS = {"SaveImage": "images", "PreviewImage": "images", "SaveVideo": "video"}


def small(prompt: dict) -> dict:
    """The prompt with few steps and small pictures; what it would save is caught, and each composite's parts."""
    done = {}
    for key, node in prompt.items():
        inputs, kind = dict(node["inputs"]), node["class_type"]
        if "steps" in inputs:
            inputs["steps"] = 3
        if kind == "GradPaintEncode":
            inputs["target_size"] = 0 if inputs["target_size"] > 64 else inputs["target_size"]
            inputs.update({name: min(value, 16) for name, value in inputs.items() if name.startswith("pad_")})
        done[key] = catch(inputs[SINKS[kind]]) if kind in SINKS else {**node, "inputs": inputs}
        if kind == "GradPaintComposite":
            encode = prompt[inputs["stitch"][0]]["inputs"]
            done |= {
                f"{key} done": catch([key, 0]),
                f"{key} weights": catch([key, 1]),
                f"{key} given": catch(encode["image"]),
            }
    return done


def catch(source: list) -> dict:
    return {"class_type": "Catch", "inputs": {"value": source}}


def check(caught: dict, prompt: dict) -> None:
    """Each composite: the input's size, known pixels as they were bit for bit, the hole new."""
    composites = {key: node for key, node in prompt.items() if node["class_type"] == "GradPaintComposite"}
    assert composites
    for key, node in composites.items():
        done, weights, given = (caught[f"{key} {part}"] for part in ("done", "weights", "given"))
        left, top, right, bottom = (
            prompt[node["inputs"]["stitch"][0]]["inputs"][f"pad_{side}"] for side in ("left", "top", "right", "bottom")
        )
        count, height, width, _ = given.shape
        assert done.shape == (count, height + top + bottom, width + left + right, 3)
        assert weights.shape == done.shape[:3]
        inner = slice(top, top + height), slice(left, left + width)
        known, hole = weights[:, inner[0], inner[1]] == 0, weights == 1
        assert 0.2 < known.float().mean() and hole.any()
        assert (done[:, inner[0], inner[1]][known] == given[known]).all(), f"composite {key}: known pixels differ"
        if (height, width) == done.shape[1:3]:
            assert (done - given)[hole].abs().mean() > 0.02, f"composite {key}: the hole is as it was"


@pytest.mark.parametrize("name", EXAMPLES)
def test_runs(name, host, info):
    prompt = small(to_prompt(load(name), info))
    check(executor.run(prompt), prompt)


def with_blueprint(workflow: dict) -> dict:
    """The workflow with the blueprint's node in place of encode, sampler, decode and composite."""
    graph, made = json.loads(json.dumps(workflow)), blueprint()
    (node,) = made["nodes"]
    node["id"] = graph["last_node_id"] + 1
    gone = {
        n["type"]: n
        for n in graph["nodes"]
        if n["type"] in ("GradPaintEncode", "GradPaintKSampler", "VAEDecode", "GradPaintComposite")
    }
    assert len(gone) == 4
    ids = {n["id"] for n in gone.values()}
    graph["nodes"] = [n for n in graph["nodes"] if n["id"] not in ids] + [node]
    slots = {socket["name"]: i for i, socket in enumerate(node["inputs"])}
    links = []
    for key, source, slot, target, target_slot, kind in graph["links"]:
        if target in ids and source not in ids:
            name = next(n for n in gone.values() if n["id"] == target)["inputs"][target_slot]["name"]
            node["inputs"][slots[name]]["link"] = key
            target, target_slot = node["id"], slots[name]
        if source in ids:
            if target in ids:
                continue
            source, slot = node["id"], 0
        links.append([key, source, slot, target, target_slot, kind])
    return {**graph, "links": links, "definitions": made["definitions"]}


def test_blueprint_fits(info):
    prompt = to_prompt(with_blueprint(load("gradpaint_sd15")), info)
    plain = to_prompt(load("gradpaint_sd15"), info)
    kinds = lambda p: sorted(n["class_type"] for n in p.values())
    assert kinds(prompt) == kinds(plain)


def test_blueprint_shows_widgets_that_are_there():
    (node,), (inside,) = blueprint()["nodes"], blueprint()["definitions"]["subgraphs"]
    nodes = {str(n["id"]): [s["name"] for s in n["inputs"] if "widget" in s] for n in inside["nodes"]}
    for key, name in node["properties"]["proxyWidgets"]:
        assert name in nodes[key]


def test_blueprint_runs(host, info):
    prompt = small(to_prompt(with_blueprint(load("gradpaint_sd15")), info))
    check(executor.run(prompt), prompt)
