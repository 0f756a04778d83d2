"""The encode and composite nodes with small VAEs of the host's own classes."""

import pytest
import torch
from encoding import small_vaes
from running import run


@pytest.fixture(scope="session")
def vaes(comfy_host):
    return small_vaes()


@pytest.fixture
def encode(pack_nodes, vaes):
    def make(vae="taesd", **inputs):
        with torch.inference_mode():
            return run(pack_nodes["GradPaintEncode"], vae=vaes[vae], **inputs)

    return make


@pytest.fixture
def composite(pack_nodes):
    def make(image, stitch=None, **inputs):
        with torch.inference_mode():
            return run(pack_nodes["GradPaintComposite"], image=image, stitch=stitch, **inputs)

    return make
