"""The host's own frontend in a headless Chromium, opened once for a file's tests."""

from __future__ import annotations

import pytest
import standins

from scripts import browser

ASKED = ("/api/userdata", "/user.css", "/en.md)")  # what the frontend asks for on the chance that it is there


@pytest.fixture(scope="module")
def page(server):
    problem = browser.missing()
    if problem:
        pytest.skip(f"the workflows are not tried in a browser: {problem}")
    base = server.log_path.parent
    standins.empty_files(base / "models")  # so that no model counts as missing; none of them is loaded
    standins.write_inputs(base / "input", 640, 480)
    with browser.frontend(server.url) as opened:
        yield opened


@pytest.fixture
def quiet(page):
    """The page; no error may reach its console while the test runs."""
    page.close_dialogs()
    page.messages.clear()
    yield page
    errors = [text for text in page.messages if not text.startswith("warning") and not any(x in text for x in ASKED)]
    assert not errors
