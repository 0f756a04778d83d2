"""Pictures of the documentation: there, referred to, and small."""

from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))


def test_every_workflow_is_shown():
    text = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    pictures = {path.stem for path in (ROOT / "docs" / "workflows").glob("*.png")}
    assert pictures == {*EXAMPLES, "blueprint"} and len(EXAMPLES) >= 15
    for name in pictures:
        assert text.count(f"](workflows/{name}.png)") == 1
        with Image.open(ROOT / "docs" / "workflows" / f"{name}.png") as picture:
            assert picture.width > 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_help_page_has_its_node_at_the_top(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and lines[2] == f"![The node](img/{page.stem}.png)"
    picture = page.parent / "img" / f"{page.stem}.png"
    assert picture.stat().st_size < 40_000
    with Image.open(picture) as opened:
        assert opened.width > 300
