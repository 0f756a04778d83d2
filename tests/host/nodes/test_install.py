"""Where the pack lies: folders whose help pages ComfyUI does not find, and two copies at once, are told in the log."""

import asyncio
import importlib
import logging
import sys

import pytest
from test_old_host import version_module

OWN = ".nodes.host.version"


def problems(package: str, *others: str) -> list[str]:
    return version_module().install_problems(package, [package + OWN, "torch", *others])


@pytest.mark.parametrize("name", ["gradpaint", "GradPaint-main", "grad_paint", "gradpaint(1)"])
def test_ordinary_folders(name):
    assert problems(f"/home/me/_x_local/ComfyUI/custom_nodes/{name}") == []


@pytest.mark.parametrize(
    "given, name",
    [("gradpaint-0_x_1_x_0", "gradpaint-0.1.0"), ("Grad Paint", "Grad Paint"), ("gr\u00e4dpaint", "gr\u00e4dpaint")],
)
def test_folders_whose_pages_are_not_found(given, name):
    (said,) = problems(f"/ComfyUI/custom_nodes/{given}")
    assert repr(name) in said and "rename it to gradpaint" in said and "\n" not in said


def test_two_copies():
    (said,) = problems("/c_x_ui/gradpaint", "/c_x_ui/gradpaint-main" + OWN, "/other/nodes.host.version")
    assert "in /c.ui/gradpaint-main and in /c.ui/gradpaint." in said and "remove all but one" in said


def test_the_host_hears_of_it_when_it_loads_the_pack(pack, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "/elsewhere/gradpaint" + OWN, importlib.import_module(pack.__name__ + OWN))

    async def load():
        await (await pack.comfy_entrypoint()).on_load()

    with caplog.at_level(logging.WARNING):
        asyncio.run(load())
    assert "installed more than once: in /elsewhere/gradpaint and in" in caplog.text
