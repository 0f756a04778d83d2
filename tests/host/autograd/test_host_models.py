"""Every model class of the host has a row in the zoo, or a reason here why it has none."""

import in_host
import pytest
import zoo_more

IN_ZOO = {"SD15": "sd15", "SDXL": "sdxl", "Flux": "flux"}  # of zoo.py
AUDIO, SHAPES, OTHER = "makes audio, not images", "makes 3D shapes, not images", "not a diffusion model"
NOT_IN_ZOO = {
    "StableAudio": AUDIO,
    "StableAudio3": AUDIO,
    "ACEStep": AUDIO,
    "ACEStep15": AUDIO,
    "Hunyuan3Dv2": SHAPES,
    "Hunyuan3Dv2mini": SHAPES,
    "Hunyuan3Dv2_1": SHAPES,
    "TripoSplat": SHAPES,
    "RT_DETR_v4": OTHER,
    "SAM3": OTHER,
    "SAM31": OTHER,
    "DepthAnything3": OTHER,
}


def host_classes() -> set[str]:
    import comfy.supported_models

    return {kind.__name__ for kind in comfy.supported_models.models}


def test_every_model_of_the_host_is_accounted_for(pack, host_path):
    covered = {family.config for family in zoo_more.FAMILIES.values()} | set(IN_ZOO)
    missing = host_classes() - covered - set(NOT_IN_ZOO)
    if missing and in_host.host_version(host_path)[:2] > zoo_more.MADE_FOR:
        pytest.skip(f"newer than the ComfyUI that the zoo was made for; not tried: {', '.join(sorted(missing))}")
    assert not missing, f"the host has models without a row in zoo_more or a reason in NOT_IN_ZOO: {sorted(missing)}"


def test_the_reasons_are_needed(pack):
    covered = {family.config for family in zoo_more.FAMILIES.values()} | set(IN_ZOO)
    assert not covered & set(NOT_IN_ZOO)
