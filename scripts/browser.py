"""Drives ComfyUI's own frontend in headless Chromium: load a workflow, see what it became, run it, take pictures.

Needs the `playwright` package from PyPI and a Chromium; Playwright's own download of one is not used.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_MS, RUN_MS = 120_000, 600_000
SETTLE_MS = 1500  # the canvas draws at its own pace; nothing tells when it is done

_BOX = """() => {
  const {_nodes: nodes, _groups: groups, inputNode, outputNode} = window.app.canvas.graph;
  let [x0, y0, x1, y1] = [1e9, 1e9, -1e9, -1e9];
  const take = (x, y, w, h) => { x0 = Math.min(x0, x); y0 = Math.min(y0, y); x1 = Math.max(x1, x + w);
                                 y1 = Math.max(y1, y + h); };
  for (const n of nodes) take(n.pos[0], n.pos[1] - 50, n.size[0], n.size[1] + 60);
  for (const g of groups ?? []) take(g.pos[0], g.pos[1], g.size[0], g.size[1]);
  for (const end of [inputNode, outputNode]) if (end) take(end.pos[0], end.pos[1], end.size[0], end.size[1]);
  return [x0, y0, x1, y1];
}"""
_FIT = (
    """([margin, top, most]) => {
  const c = window.app.canvas, [x0, y0, x1, y1] = ("""
    + _BOX
    + """)();
  const scale = Math.min(most, (window.innerWidth - 2 * margin) / (x1 - x0),
                         (window.innerHeight - top - margin) / (y1 - y0));
  c.deselectAll?.();
  c.ds.scale = scale;
  c.ds.offset = [margin / scale - x0, top / scale - y0];
  c.setDirty(true, true);
  return {x: 0, y: 0, width: Math.min(window.innerWidth, (x1 - x0) * scale + 2 * margin),
          height: Math.min(window.innerHeight, (y1 - y0) * scale + margin + top)};
}"""
)
_BARE = """() => {
  const hold = e => e.matches('.dom-widget, #graph-canvas-container') || e.querySelector('.dom-widget, #graph-canvas');
  for (let e = document.getElementById('graph-canvas-container'); e !== document.body; e = e.parentElement)
    for (const other of e.parentElement.children)
      if (other !== e && !hold(other)) other.style.setProperty('display', 'none', 'important');
  for (const e of document.querySelectorAll('.actionbar-container, .side-tool-bar-container, .workflow-tabs-container, '
      + '.subgraph-breadcrumb, .p-toast')) e.style.setProperty('display', 'none', 'important');
}"""


def chromium() -> str | None:
    """Path of a Chromium: $CHROMIUM_PATH, else one on the PATH."""
    return (
        os.environ.get("CHROMIUM_PATH")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


def missing() -> str | None:
    """What to install before a browser can be driven; None if nothing."""
    if importlib.util.find_spec("playwright") is None:
        return "the playwright package is missing: pip install playwright (its own browser download is not needed)"
    if chromium() is None:
        return "no Chromium found: apt-get install chromium, or set CHROMIUM_PATH"
    return None


class Frontend:
    """A page with ComfyUI's frontend in it. `messages`: console errors and warnings, failed scripts."""

    def __init__(self, page, url: str):
        self.page, self.url, self.messages = page, url, []
        page.on(
            "console",
            lambda m: (
                m.type in ("error", "warning") and self.messages.append(f"{m.type}: {m.text} ({m.location['url']})")
            ),
        )
        page.on("pageerror", lambda error: self.messages.append(f"pageerror: {error}"))
        page.goto(url, wait_until="domcontentloaded", timeout=START_MS)
        page.wait_for_function("window.app && window.app.graph && window.app.extensionManager", timeout=START_MS)
        page.wait_for_function("Object.keys(window.LiteGraph.registered_node_types).length > 100", timeout=START_MS)
        page.wait_for_timeout(2 * SETTLE_MS)
        self.close_dialogs()

    def close_dialogs(self) -> None:
        self.page.keyboard.press("Escape")
        self.page.wait_for_timeout(300)

    def setting(self, name: str, value) -> None:
        self.page.evaluate("([n, v]) => window.app.extensionManager.setting.set(n, v)", [name, value])

    def load(self, workflow: dict) -> None:
        self.page.evaluate("async w => { await window.app.loadGraphData(w, true, true); }", workflow)
        self.page.wait_for_timeout(SETTLE_MS // 2)

    def nodes(self) -> list[dict]:
        """Of each node of the shown graph: id, type, whether it is known, marked as wrong, its place and size."""
        return self.page.evaluate("""() => window.app.canvas.graph._nodes.map(n => ({
            id: String(n.id), type: n.type, title: n.title, pos: [...n.pos], size: [...n.size],
            least: n.computeSize ? [...n.computeSize()] : null,
            known: n.type in window.LiteGraph.registered_node_types || !!n.subgraph, wrong: !!n.has_errors }))""")

    def prompt(self) -> dict:
        """What the frontend would send to the server."""
        return self.page.evaluate("async () => (await window.app.graphToPrompt()).output")

    def serialized(self) -> dict:
        return self.page.evaluate("() => JSON.parse(JSON.stringify(window.app.graph.serialize()))")

    def forget(self) -> None:
        """The server forgets earlier results: what it has in its cache it does not show again in the node."""
        self.page.evaluate(
            "() => window.app.api.fetchApi('/free', {method: 'POST', "
            "headers: {'Content-Type': 'application/json'}, body: '{\"free_memory\": true}'})"
        )
        self.page.wait_for_timeout(SETTLE_MS)

    def queue(self) -> tuple[int, str]:
        """Press Run: the server's answer. What the frontend's own call returns means other things in other versions."""
        with self.page.expect_response(lambda r: r.request.method == "POST" and r.url.endswith("/prompt")) as answer:
            self.page.evaluate("async () => { await window.app.queuePrompt(0, 1); }")
        return answer.value.status, answer.value.text()

    def run(self) -> None:
        """Press Run and wait for the end. RuntimeError with the server's words if it failed."""
        self.page.evaluate(
            """timeout => {
            const api = window.app.api;
            window.runEnds = new Promise(resolve => {
                api.addEventListener('execution_success', () => resolve(''), {once: true});
                for (const name of ['execution_error', 'execution_interrupted'])
                    api.addEventListener(name, e => resolve(JSON.stringify(e.detail)), {once: true});
                setTimeout(() => resolve('not done in time'), timeout);
            });
        }""",
            RUN_MS,
        )
        status, said = self.queue()
        if status != 200:
            raise RuntimeError(f"the server refused the prompt: {said[:3000]}")
        result = self.page.evaluate("() => window.runEnds")
        if result:
            raise RuntimeError(result[:3000])
        self.page.wait_for_timeout(SETTLE_MS)

    def pictures(self) -> dict:
        """{node id: [width, height] of each picture the node shows}, loaded."""
        return self.page.evaluate("""() => Object.fromEntries(window.app.graph._nodes.filter(n => n.imgs?.length)
            .map(n => [n.id, n.imgs.map(i => [i.naturalWidth, i.naturalHeight])]))""")

    def fit(self, margin: int = 20, top: int = 20, most: float = 1.0) -> dict:
        """The whole graph into the window, at scale `most` at most: the clip around it, {x, y, width, height}."""
        clip = self.page.evaluate(_FIT, [margin, top, most])
        self.page.wait_for_timeout(SETTLE_MS)
        return clip

    def picture(self, path: Path, width: int = 1900, scale: float = 0.75) -> None:
        """A PNG of the whole graph and nothing else, its text readable: the window is made as large as that needs."""
        self.page.set_viewport_size({"width": width, "height": 1000})
        x0, y0, x1, y1 = self.page.evaluate(_BOX)
        width = max(600, int((x1 - x0) * scale) + 60)
        self.page.set_viewport_size({"width": width, "height": max(400, int((y1 - y0) * scale) + 60)})
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=str(path), clip=self.fit(most=scale))

    def bare(self) -> None:
        """Hides all but the canvas and what lies on it, and draws text at every scale."""
        self.setting("Comfy.Minimap.Visible", False)
        self.setting("Comfy.Graph.CanvasInfo", False)
        self.setting("Comfy.Graph.CanvasMenu", False)
        self.setting("LiteGraph.Canvas.MinFontSizeForLOD", 0)
        self.page.evaluate(_BARE)
        self.page.add_style_tag(content='[data-testid="queue-notification-banner"] { display: none !important; }')
        self.page.wait_for_timeout(500)

    def screenshot(self, path: Path) -> None:
        self.page.screenshot(path=str(path))


@contextmanager
def frontend(url: str, width: int = 1900, height: int = 1050):
    """A Frontend at url, closed afterwards. RuntimeError if there is no browser to drive."""
    problem = missing()
    if problem:
        raise RuntimeError(problem)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=list(FLAGS))
        try:
            yield Frontend(browser.new_page(viewport={"width": width, "height": height}), url)
        finally:
            browser.close()
