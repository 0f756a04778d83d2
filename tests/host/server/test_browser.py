"""The host's own frontend in a headless Chromium: workflows, templates, blueprint, help pages, and a quickstart run."""

from __future__ import annotations

import json
import re

import in_host
import pytest
from PIL import Image
from workflow_api import to_prompt

from scripts.workflows.blueprint import NAME as BLUEPRINT

pytestmark = pytest.mark.slow
FOLDER = in_host.PACK_ROOT / "example_workflows"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.json"))
HELP_PAGES = sorted(path.stem for path in (in_host.PACK_ROOT / "web" / "docs").glob("*.md"))

LEFT_OUT = ("video-preview", "bit_depth")  # the frontend's own; an input that older hosts lack


def load(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def plain(prompt: dict) -> dict:
    """Class and inputs alone, without what the frontend adds for itself."""
    return {
        key: (node["class_type"], {k: v for k, v in node["inputs"].items() if k not in LEFT_OUT})
        for key, node in prompt.items()
    }


def wait_for_pictures(page) -> None:
    """Until each output node shows its pictures: they come some time after the end of the run."""
    page.page.wait_for_function(
        "() => window.app.graph._nodes.filter(n => n.constructor.nodeData?.output_node && "
        "/Image$/.test(n.type)).every(n => n.imgs?.length && n.imgs[0].naturalWidth)"
    )


def overlapping(nodes: list[dict]) -> list:
    boxes = [
        (n["title"], n["pos"][0], n["pos"][1] - 30, n["pos"][0] + n["size"][0], n["pos"][1] + n["size"][1])
        for n in nodes
    ]
    return [
        (a[0], b[0])
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_workflow_opens(name, quiet, object_info):
    quiet.load(load(name))
    nodes = quiet.nodes()
    assert len(nodes) == len(load(name)["nodes"])
    assert not [n for n in nodes if not n["known"] or n["wrong"]]
    assert not overlapping(nodes)  # with the sizes that the frontend gives them
    assert plain(quiet.prompt()) == plain(to_prompt(load(name), object_info))


def test_nodes_2_draws_every_node(quiet):
    """The frontend's newer way of drawing: each node an element of the page."""
    quiet.setting("Comfy.VueNodes.Enabled", True)
    try:
        quiet.load(load("gradpaint_quickstart"))
        quiet.fit()
        nodes = quiet.nodes()
        quiet.page.wait_for_function("n => document.querySelectorAll('[data-node-id]').length === n", arg=len(nodes))
        assert not [n for n in nodes if not n["known"] or n["wrong"]]
    finally:
        quiet.setting("Comfy.VueNodes.Enabled", False)


REPORT = "window.app.graph._nodes.find(n => n.type === 'GradPaintReport')"


def test_report_is_shown_line_by_line_and_again_when_all_is_cached(quiet):
    """Nodes 2.0 reads the text as Markdown; a page that is loaded anew has forgotten it."""
    workflow = load("gradpaint_report")
    sampler = next(n for n in workflow["nodes"] if n["type"] == "GradPaintKSampler")
    sampler["widgets_values"][2] = 4  # steps
    quiet.load(workflow)
    quiet.run()
    assert not overlapping(quiet.nodes())  # with the sizes that they take for their pictures
    quiet.setting("Comfy.VueNodes.Enabled", True)
    try:
        quiet.page.evaluate(
            f"() => {{ const c = window.app.canvas, n = {REPORT}; c.ds.scale = 1; "
            "c.ds.offset = [100 - n.pos[0], 150 - n.pos[1]]; c.setDirty(true, true); }"
        )
        quiet.page.wait_for_function(
            f"() => document.querySelector(`[data-node-id='${{{REPORT}.id}}']`)?.innerText.split('\\n')"
            ".some(line => line.trim() === 'steps: 4, of which guided 2')",
            timeout=20_000,
        )
    finally:
        quiet.setting("Comfy.VueNodes.Enabled", False)
    quiet.load(workflow)
    assert not quiet.page.evaluate(f"() => {REPORT}.widgets?.length")
    quiet.run()
    assert quiet.page.evaluate(f"() => {REPORT}.widgets[0]?.value").startswith("steps: 4, of which guided 2")


def test_a_missing_node_is_found(page):
    workflow = load("gradpaint_sd15")
    {n["type"]: n for n in workflow["nodes"]}["GradPaintComposite"]["type"] = "GradPaintNoSuchNode"
    page.load(workflow)
    page.close_dialogs()
    nodes = {n["type"]: n for n in page.nodes()}
    assert not nodes["GradPaintNoSuchNode"]["known"] and nodes["GradPaintKSampler"]["known"]


def test_a_missing_file_is_found(page):
    """Newer frontends mark it when the graph is opened, older ones when it is run."""
    workflow = load("gradpaint_sd15")
    by_type = {n["type"]: n for n in workflow["nodes"]}
    by_type["CheckpointLoaderSimple"]["widgets_values"] = ["not_here.safetensors"]
    page.load(workflow)
    page.close_dialogs()
    status, said = page.queue()
    assert status == 400 and "not_here.safetensors" in said
    page.page.wait_for_function("() => window.app.graph._nodes.some(n => n.has_errors)")
    assert [n["type"] for n in page.nodes() if n["wrong"]] == ["CheckpointLoaderSimple"]
    page.close_dialogs()


def test_quickstart_runs_and_shows_its_pictures(quiet, tmp_path, capsys):
    quiet.load(load("gradpaint_quickstart"))
    quiet.run()
    wait_for_pictures(quiet)
    shown = {n["title"]: quiet.pictures().get(n["id"]) for n in quiet.nodes()}
    assert shown["Given - with GradPaint - without"] == [[4 * (3 * 64 + 2 * 4), 4 * 64]]
    assert shown["With GradPaint"] == shown["Without"] == [[64, 64]]
    assert not [n for n in quiet.nodes() if n["wrong"]]
    quiet.fit()
    quiet.screenshot(tmp_path / "quickstart.png")
    with Image.open(tmp_path / "quickstart.png") as picture:
        assert picture.size[0] > 1000
    with capsys.disabled():
        print(f"\nscreenshot: {tmp_path / 'quickstart.png'}")


def test_templates_list_opens_a_workflow(quiet):
    quiet.page.click(".templates-tab-button")
    quiet.page.get_by_text("gradpaint", exact=True).first.click()
    for name in EXAMPLES:
        quiet.page.get_by_text(name, exact=True).first.wait_for()
    quiet.page.wait_for_function(
        "n => [...document.querySelectorAll('img')].filter(i => i.naturalWidth === 400).length >= n", arg=4
    )  # thumbnails further down load when they come into sight
    quiet.page.get_by_text("gradpaint_batch", exact=True).first.click()
    quiet.page.wait_for_function("() => window.app.graph._nodes.some(n => n.title === 'Inpainted')")
    assert {n["type"] for n in quiet.nodes()} == {n["type"] for n in load("gradpaint_batch")["nodes"]}


def test_blueprint_is_found_inserted_and_runs(server, quiet):
    entries = json.loads(server.get("/global_subgraphs")).values()
    assert [e["name"] for e in entries if e["info"]["node_pack"] == "custom_nodes.gradpaint"] == [BLUEPRINT]
    workflow = load("gradpaint_custom_sampling")
    quiet.load({**workflow, "nodes": [], "links": [], "groups": []})
    quiet.page.mouse.dblclick(900, 500)
    quiet.page.keyboard.type(BLUEPRINT)
    quiet.page.get_by_text(re.compile("Subgraph Blueprints /|^Blueprint$")).first.wait_for()  # newer, older frontends
    quiet.page.keyboard.press("Enter")
    quiet.page.wait_for_function("() => window.app.graph._nodes.length === 1")
    quiet.page.mouse.click(900, 500)
    quiet.page.evaluate("""() => {
        const graph = window.app.graph, [node] = graph._nodes, add = (type, values) => {
            const made = window.LiteGraph.createNode(type);
            graph.add(made);
            for (const [name, value] of Object.entries(values ?? {}))
                made.widgets.find(w => w.name === name).value = value;
            return made;
        };
        const model = add('GradPaintLoadGuidedDiffusion'), vae = add('VAELoader', {vae_name: 'pixel_space'});
        const scene = add('GradPaintDemoScene'), shown = add('PreviewImage');
        const mask = add('GradPaintMaskGenerator', {width: 64, height: 64});
        const to = name => node.findInputSlot(name);
        [['model', 0], ['positive', 1], ['negative', 2]].forEach(([name, slot]) => model.connect(slot, node, to(name)));
        vae.connect(0, node, to('vae'));
        scene.connect(0, node, to('image'));
        mask.connect(0, node, to('mask'));
        node.connect(0, shown, 0);
        for (const [name, value] of [['steps', 4], ['cfg', 1], ['seed', 3]])
            node.widgets.find(w => w.name === name).value = value;
    }""")
    sampler = next(n for n in quiet.prompt().values() if n["class_type"] == "GradPaintKSampler")
    assert (sampler["inputs"]["steps"], sampler["inputs"]["cfg"], sampler["inputs"]["seed"]) == (4, 1, 3)
    quiet.run()
    wait_for_pictures(quiet)
    assert list(quiet.pictures().values())[-1] == [[64, 64]]


def test_help_pages_show_their_pictures(quiet):
    quiet.load({"nodes": [], "links": [], "version": 0.4})
    for node_id in HELP_PAGES:
        text = (in_host.PACK_ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
        assert text.splitlines()[2] == f"![The node](img/{node_id}.png)", node_id
        quiet.page.evaluate(
            """type => {
            const node = window.LiteGraph.createNode(type), canvas = window.app.canvas;
            for (const old of [...window.app.graph._nodes]) window.app.graph.remove(old);
            window.app.graph.add(node);
            node.pos = [200, 200];
            canvas.selectNode(node);
            canvas.setDirty(true, true);
        }""",
            node_id,
        )
        if node_id == HELP_PAGES[0]:  # afterwards the panel is open and follows the selection
            quiet.page.click("[data-testid=info-button]")
        quiet.page.wait_for_function(
            "id => [...document.querySelectorAll('img')].some("
            "i => i.src.endsWith(`/docs/img/${id}.png`) && i.naturalWidth > 0)",
            arg=node_id,
        )
