"""All node classes in the real host: schemas, help pages, defaults."""

import pytest
import torch
from running import NODE_IDS, defaults, run


def test_all_nodes_are_there(pack_nodes):
    assert {key: node.GET_SCHEMA().display_name for key, node in pack_nodes.items()} == NODE_IDS


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_schema_is_complete(pack_nodes, node_id):
    schema = pack_nodes[node_id].GET_SCHEMA()
    assert schema.category == "GradPaint"
    assert schema.description and schema.search_aliases
    for item in schema.inputs:
        assert item.tooltip, f"{node_id}.{item.id} has no tooltip"
    assert pack_nodes[node_id].GET_NODE_INFO_V1()["name"] == node_id  # what /object_info sends


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_help_page_is_there(pack, node_id):
    from pathlib import Path

    page = Path(pack.__file__).parent / "web" / "docs" / f"{node_id}.md"
    text = page.read_text()
    assert text.startswith(f"# {NODE_IDS[node_id]}")


def test_ksampler_takes_the_hosts_inputs_in_the_hosts_order(comfy_host, pack_nodes):
    ours = [item.id for item in pack_nodes["GradPaintKSampler"].GET_SCHEMA().inputs]
    theirs = list(comfy_host.KSampler.INPUT_TYPES()["required"])
    assert ours[: len(theirs)] == theirs
    info = pack_nodes["GradPaintKSampler"].GET_NODE_INFO_V1()["input"]["required"]
    for name in ("sampler_name", "scheduler"):
        assert list(info[name][1]["options"]) == list(comfy_host.KSampler.INPUT_TYPES()["required"][name][0])


def test_defaults_are_the_librarys(pack, pack_nodes):
    settings = pack.gradpaint.method.settings
    assert run(pack_nodes["GradPaintAlignmentLoss"]) == (settings.AlignmentSettings(),)
    assert run(pack_nodes["GradPaintEarlyStop"]) == (settings.GuideSchedule(),)
    inputs = defaults(pack_nodes["GradPaintKSampler"])
    made = settings.GuidanceSettings(strength=inputs["strength"], normalization=inputs["normalization"])
    assert made == settings.GuidanceSettings()


@pytest.mark.parametrize(
    "node_id, newer",
    [
        ("GradPaintKSampler", ["memory", "gradient", "alpha", "keep_record", "preset"]),
        ("GradPaintKSamplerAdvanced", ["memory", "gradient", "alpha", "keep_record", "preset"]),
        ("GradPaintSampler", ["memory", "gradient", "alpha", "keep_record", "preset"]),
        ("GradPaintApply", ["memory", "gradient", "alpha", "keep_record", "preset"]),
        ("GradPaintAlignmentLoss", ["space", "vae", "loss", "fraction"]),
        ("GradPaintEarlyStop", ["between", "minimum", "maximum", "patience", "tolerance"]),
    ],
)
def test_newer_inputs_come_last_and_may_be_missing(pack_nodes, node_id, newer):
    """Saved workflows list a node's values by position, and prompts of older versions lack the newer ones."""
    info = pack_nodes[node_id].GET_NODE_INFO_V1()["input"]
    assert list(info["optional"])[-len(newer) :] == newer and not set(newer) & set(info["required"])


def test_settings_out_of_range_name_input_and_value(pack_nodes):
    with pytest.raises(ValueError, match=r"lambda_al is -1.*between 0"):
        run(pack_nodes["GradPaintAlignmentLoss"], lambda_al=-1)


def test_demo_scene_is_a_held_out_scene(pack, pack_nodes):
    scenes = pack.gradpaint.models.scenes
    (image,) = run(pack_nodes["GradPaintDemoScene"], seed=3, size=32, batch_size=2)
    assert image.shape == (2, 32, 32, 3) and 0 <= image.min() and image.max() <= 1
    expected = torch.from_numpy(scenes.landscape(scenes.HELD_OUT_SEEDS[3], 32)).float() / 255
    assert torch.allclose(image[0], expected, atol=1e-6)
