"""The bundled model between GradPaint Inpaint Encode and GradPaint Composite: encode, sample, decode, composite."""

import pytest
import torch
import torch.nn.functional as F
from encoding import box
from running import run


@pytest.fixture(scope="module")
def bundled(pack_nodes):
    """(MODEL, positive, negative)."""
    loader = pack_nodes["GradPaintLoadGuidedDiffusion"]
    name = next(item for item in loader.GET_SCHEMA().inputs if item.id == "ckpt_name").options[0]
    with torch.inference_mode():
        return run(loader, ckpt_name=name)


def test_a_batch_through_the_sampler(pack_nodes, vaes, encode, composite, bundled):
    """Hard, empty and soft masks side by side, the soft one for Differential Diffusion."""
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    model, positive, negative = bundled
    images = run(pack_nodes["GradPaintDemoScene"], seed=1, batch_size=2)[0].repeat(2, 1, 1, 1)[:3]
    masks = torch.cat([box(64, 64, 10, 30, 10, 30), torch.zeros(1, 64, 64), box(64, 64, 30, 50, 20, 50)])
    latent, stitch, shown, sampled = encode("pixel_space", image=images, mask=masks, feather=6)
    assert ((sampled > 0) & (sampled < 1)).any((1, 2)).tolist() == [True, False, True]
    with torch.inference_mode():
        out, _ = run(
            pack_nodes["GradPaintKSampler"],
            model=DifferentialDiffusion.execute(model, 1.0).args[0],
            seed=0,
            steps=4,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image=latent,
        )
        decoded = vaes["pixel_space"].decode(out["samples"])
    result, share = composite(decoded, stitch)
    assert torch.equal(result[1], images[1]) and share[1].max() == 0
    assert torch.equal(result[share == 0], images[share == 0]) and result.isfinite().all()
    assert all((result[i] - images[i])[masks[i] == 1].abs().mean() > 0.01 for i in (0, 2))


@pytest.mark.parametrize("inputs", [{}, {"area": "around the mask", "target_size": 64, "square": True, "grow": 2}])
def test_the_whole_chain_on_the_bundled_model(pack_nodes, vaes, encode, composite, bundled, inputs):
    """A 96 x 50 picture through encode, sampler, decode and composite: the same size, the known part bit for bit."""
    model, positive, negative = bundled
    with torch.inference_mode():
        image = F.interpolate(run(pack_nodes["GradPaintDemoScene"], seed=1)[0].movedim(-1, 1), (50, 96)).movedim(1, -1)
        mask = box(50, 96, 15, 40, 30, 60)
        latent, stitch, shown, _ = encode("pixel_space", image=image, mask=mask, **inputs)
        out, record = run(
            pack_nodes["GradPaintKSampler"],
            model=model,
            seed=0,
            steps=6,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image=latent,
        )
        decoded = vaes["pixel_space"].decode(out["samples"])
    assert decoded.shape == shown.shape and record.guided
    result, share = composite(decoded, stitch)
    assert result.shape == image.shape and result.dtype == image.dtype
    assert torch.equal(result[share == 0], image[share == 0]) and 0.3 < (share == 0).float().mean() < 0.9
    hole = mask == 1
    assert (share[hole] == 1).all() and (result[hole] - image[hole]).abs().mean() > 0.01
    assert 0 <= result.min() and result.max() <= 1 and result.isfinite().all()
