"""GradPaint Mask Generator: every kind of mask, its options, size and preview."""

import pytest
import torch
from running import defaults, run


def mask_kinds(pack):
    return pack.gradpaint.masks.MASK_KINDS


def test_mask_generator_makes_every_kind_with_a_preview(pack, pack_nodes):
    node = pack_nodes["GradPaintMaskGenerator"]
    offered = next(item.options for item in node.GET_SCHEMA().inputs if item.id == "kind")
    assert tuple(offered) == mask_kinds(pack)
    for kind in offered:
        output = node.execute(**{**defaults(node), "kind": kind, "width": 96, "height": 64, "batch_size": 2, "seed": 5})
        (mask,) = output.args
        assert mask.shape == (2, 64, 96) and mask.dtype == torch.float32
        assert 0 < mask.mean() < 1 and set(mask.unique().tolist()) <= {0.0, 1.0}
        assert len(output.ui.as_dict()["images"]) == 2


def test_mask_generator_is_the_librarys_and_counts_seeds_up(pack, pack_nodes):
    (mask,) = run(pack_nodes["GradPaintMaskGenerator"], kind="medium", width=80, height=64, batch_size=2, seed=7)
    assert torch.equal(mask, pack.gradpaint.masks.make_masks("medium", 64, 80, [7, 8])[:, 0])


def test_mask_generator_options_reach_the_library(pack_nodes):
    node = pack_nodes["GradPaintMaskGenerator"]
    (half,) = run(node, kind="half", width=8, height=8, side="bottom")
    assert torch.equal(half[0].sum(1), torch.tensor([0.0] * 4 + [8.0] * 4))
    (outpaint,) = run(node, kind="outpaint", width=16, height=16, right=4)
    assert torch.equal(outpaint[0].sum(0), torch.tensor([0.0] * 12 + [16.0] * 4))
    (border,) = run(node, kind="outpaint", width=16, height=16)
    assert border[0, 2:-2, 2:-2].sum() == 0 and border.sum() == 16 * 16 - 12 * 12
    (covered,) = run(node, kind="coverage", width=64, height=64, coverage=0.5)
    assert covered.mean() == pytest.approx(0.5, abs=0.01)


def test_mask_generator_takes_its_size_from_an_image_or_a_latent(pack_nodes):
    node = pack_nodes["GradPaintMaskGenerator"]
    (mask,) = run(node, kind="box", size_from=torch.zeros(1, 24, 40, 3))
    assert mask.shape == (1, 24, 40)
    (mask,) = run(node, kind="box", size_from={"samples": torch.zeros(2, 4, 16, 12)})
    assert mask.shape == (1, 16, 12)
