"""Takes the pictures in the documentation, with a real ComfyUI, its own frontend and a headless Chromium.

    python scripts/screenshots.py [workflows] [thumbnails] [nodes] [--only gradpaint_flux ...]

None named: all. workflows: docs/workflows/<name>.png, the whole graph, after a run where the workflow needs no files;
thumbnails: example_workflows/<name>.jpg, the result, or the graph; nodes: web/docs/img/<node id>.png.
Finds ComfyUI as the tests do (COMFYUI_PATH); for what else is needed see scripts/browser.py.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "host" / "support")]

import in_host  # noqa: E402
import standins  # noqa: E402
from server_process import Server  # noqa: E402

from scripts.browser import Frontend, frontend  # noqa: E402

THUMBNAIL, NODE_WIDTH = 400, 340  # pixels; cards in the list of templates are square
STRIP = "Given - with GradPaint - without"
METHODS = "True - given - combine_noisy - repaint - dps - GradPaint"
# Workflow without files -> what its thumbnail shows: titles of nodes, or (title, which of how many side by side).
RESULTS = {
    "gradpaint_quickstart": [(STRIP, 0, 3), "GradPaint Mask Generator", (STRIP, 1, 3), (STRIP, 2, 3)],
    "gradpaint_compare_methods": [(METHODS, i, 6) for i in (1, 3, 4, 5)],
    "gradpaint_batch": ["Inpainted"],
    "gradpaint_crop_around_mask": ["After"],
    "gradpaint_custom_sampling": ["Inpainted"],
    "gradpaint_report": ["Losses"],
}
_PICTURES = """async title => {
  const node = window.app.graph._nodes.find(n => n.title === title);
  return await Promise.all(node.imgs.map(async image => {
    const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
    return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
  }));
}"""
_ONE_NODE = """([type, width]) => {
  const graph = window.app.graph, node = window.LiteGraph.createNode(type);
  for (const old of [...graph._nodes]) graph.remove(old);  // clear() would give the next one its id and its values
  for (const old of [...graph._groups]) graph.remove(old);
  node.showAdvanced = true;
  graph.add(node);
  node.pos = [0, 0];
  node.setSize([Math.max(width, node.computeSize()[0]), node.computeSize()[1] + 4]);
}"""


def palette(path: Path) -> None:
    """Rewrites a PNG with 256 colours, the most frequent ones exact: the file is a third as large."""
    with Image.open(path) as picture:
        picture = picture.convert("RGB")
    frequent = [c for _, c in sorted(picture.getcolors(picture.width * picture.height), reverse=True)[:160]]
    rare = picture.quantize(256 - len(frequent), Image.Quantize.MAXCOVERAGE).getpalette()
    colours = Image.new("P", (1, 1))
    colours.putpalette([value for colour in frequent for value in colour] + rare[: 3 * (256 - len(frequent))])
    picture.quantize(palette=colours, dither=Image.Dither.NONE).save(path, optimize=True)


def shown(page: Frontend, title: str) -> list[Image.Image]:
    """The pictures that the node shows."""
    return [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in page.page.evaluate(_PICTURES, title)
    ]


def of_strip(strip: Image.Image, which: int, count: int) -> Image.Image:
    """One of the square pictures that lie side by side with equal gaps."""
    side = strip.height
    left = round(which * (strip.width - side) / (count - 1))
    return strip.crop((left, 0, left + side, side))


def of_results(page: Frontend, parts: list) -> Image.Image:
    """The pictures, several two by two."""
    tiles = []
    for part in parts:
        tiles += shown(page, part) if isinstance(part, str) else [of_strip(shown(page, part[0])[0], *part[1:])]
    if len(tiles) == 1:
        return tiles[0]
    side = THUMBNAIL // 2
    sheet = Image.new("RGB", (THUMBNAIL, THUMBNAIL))
    for i, tile in enumerate(tiles):
        sheet.paste(tile.resize((side, side), Image.Resampling.NEAREST), (i % 2 * side, i // 2 * side))
    return sheet


def of_graph(path: Path) -> Image.Image:
    """A square of the graph's picture, from where the note ends."""
    with Image.open(path) as graph:
        left = round(0.21 * graph.width)
        return graph.convert("RGB").crop((left, 0, left + graph.height, graph.height))


def thumbnail(picture: Image.Image, path: Path) -> None:
    method = Image.Resampling.LANCZOS if max(picture.size) > THUMBNAIL else Image.Resampling.NEAREST
    picture = ImageOps.contain(picture, (THUMBNAIL, THUMBNAIL), method)
    ImageOps.pad(picture, (THUMBNAIL, THUMBNAIL), color=(24, 24, 24)).save(path, quality=88)


def workflows(page: Frontend, wanted: set[str], only: list[str]) -> None:
    (ROOT / "docs" / "workflows").mkdir(parents=True, exist_ok=True)
    for file in sorted((ROOT / "example_workflows").glob("*.json")):
        if only and file.stem not in only:
            continue
        page.load(json.loads(file.read_text(encoding="utf-8")))
        if file.stem in RESULTS:
            page.forget()
            page.run()
        page.bare()
        graph = ROOT / "docs" / "workflows" / f"{file.stem}.png"
        if "workflows" in wanted:
            page.picture(graph)
            palette(graph)
            print(graph.relative_to(ROOT), graph.stat().st_size)
        if "thumbnails" in wanted:
            picture = of_results(page, RESULTS[file.stem]) if file.stem in RESULTS else of_graph(graph)
            thumbnail(picture, file.with_suffix(".jpg"))


def blueprint(page: Frontend) -> None:
    """The inside of the subgraph."""
    (file,) = (ROOT / "subgraphs").glob("*.json")
    page.load(json.loads(file.read_text(encoding="utf-8")))
    page.page.evaluate("() => { const [n] = window.app.graph._nodes; window.app.canvas.openSubgraph(n.subgraph, n); }")
    page.bare()
    picture = ROOT / "docs" / "workflows" / "blueprint.png"
    page.picture(picture)
    palette(picture)


def nodes(page: Frontend, info: dict) -> None:
    folder = ROOT / "web" / "docs" / "img"
    folder.mkdir(parents=True, exist_ok=True)
    page.load({"nodes": [], "links": [], "version": 0.4})
    page.bare()
    for node_id in sorted(key for key, entry in info.items() if entry["category"] == "GradPaint"):
        page.page.evaluate(_ONE_NODE, [node_id, NODE_WIDTH])
        page.picture(folder / f"{node_id}.png", scale=1.25)
        palette(folder / f"{node_id}.png")
        print(node_id, (folder / f"{node_id}.png").stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[[], "workflows", "thumbnails", "nodes"], metavar="what")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these example workflows")
    arguments = parser.parse_args()
    wanted = set(arguments.what) or {"workflows", "thumbnails", "nodes"}
    host = in_host.find_host()
    if host is None:
        sys.exit("no ComfyUI found: set COMFYUI_PATH")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        standins.empty_files(base / "models")
        standins.write_inputs(base / "input", 640, 480)
        server = Server(host, base)
        try:
            server.wait()
            with frontend(server.url) as page:
                if wanted & {"workflows", "thumbnails"}:
                    workflows(page, wanted, arguments.only)
                if "workflows" in wanted:
                    blueprint(page)
                if "nodes" in wanted:
                    nodes(page, json.loads(server.get("/object_info")))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
