"""Fixtures of the tests of the alignment loss on latents."""

import pytest


@pytest.fixture(scope="module")
def decoders(tools):
    return tools.module("nodes.host.latents.decoders")


@pytest.fixture
def approx(comfy_host, tmp_path, monkeypatch):
    """An empty vae_approx folder, and nothing else of that name."""
    import folder_paths

    _, extensions = folder_paths.folder_names_and_paths["vae_approx"]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_approx", ([str(tmp_path)], extensions))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path
