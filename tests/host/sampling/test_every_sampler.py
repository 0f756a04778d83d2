"""GradPaint KSampler with each sampler and each scheduler that ComfyUI has: it guides, and the known part is kept."""

import pytest
import torch
import zoo

STEPS = 4


@pytest.fixture(scope="module")
def given(pack, tmp_path_factory) -> dict:
    model = zoo.build("guided_diffusion", pack, tmp_path_factory.mktemp("every"))
    conditioning = pack.nodes.host.guided_diffusion.conditioning(None)
    samples = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 5:11] = 1
    return dict(
        model=model,
        seed=3,
        steps=STEPS,
        cfg=1.0,
        positive=conditioning,
        negative=conditioning,
        latent_image={"samples": samples},
        mask=mask,
        denoise=1.0,
    )


def check(node, given, **choice):
    with torch.inference_mode():
        latent, record = node.execute(**given, **choice, strength=1.0, normalization="rms").args[:2]
    known = (given["mask"] == 0)[:, None].expand(1, 3, 16, 16)
    assert torch.equal(latent["samples"][known], given["latent_image"]["samples"][known]), choice
    assert latent["samples"].isfinite().all() and record.backwards >= 1 and record.guided[0].gradient_rms.min() > 0, (
        choice
    )


def test_every_sampler(pack_nodes, given):
    from comfy.samplers import KSampler

    assert len(KSampler.SAMPLERS) > 30
    for sampler in KSampler.SAMPLERS:
        check(pack_nodes["GradPaintKSampler"], given, sampler_name=sampler, scheduler="normal")


def test_every_scheduler(pack_nodes, given):
    from comfy.samplers import KSampler

    assert len(KSampler.SCHEDULERS) > 6
    for scheduler in KSampler.SCHEDULERS:
        check(pack_nodes["GradPaintKSampler"], given, sampler_name="euler", scheduler=scheduler)
