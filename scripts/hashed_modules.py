"""What the runs of `run_hashes.py` need of the project, of ComfyUI and of the host tests.

Everything of the project that they need is imported here, in `Library` and `Host` and the lines above them: when files
move, only that part changes. The tests' tiny models and ways into the host (`tests/host/support`) are
used as they are.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # the order of sums, and so their last bits, depends on it
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "host" / "support")]

import in_host  # noqa: E402 - a module of tests/host/support

HOST_PATH = in_host.find_host()
if HOST_PATH is None or in_host.missing_requirements():
    sys.exit(f"ComfyUI: {HOST_PATH or 'not found; set COMFYUI_PATH'}; missing: {in_host.missing_requirements()}")
HOST_NODES = in_host.import_host(HOST_PATH)
PACK = in_host.import_pack()
NODES = in_host.our_nodes(PACK)


def module(name: str, root: str = ""):
    return importlib.import_module(f"{root}.{name}" if root else name)


class Library:
    """gradpaint as it is without a host."""

    settings, methods = module("gradpaint.method.settings"), module("gradpaint.sampling.methods")
    ClassifierFree = module("gradpaint.sampling.classifier_free").ClassifierFree
    view, LinearRGB = module("gradpaint.method.decoders").view, module("gradpaint.method.decoders").LinearRGB
    scenes, spaced_sigmas = module("gradpaint.models.scenes"), module("gradpaint.sampling.sigmas").spaced_sigmas
    load_denoiser = module("gradpaint.guided_diffusion").load_denoiser
    bundled_model_path = module("gradpaint.models").bundled_model_path


class Host:
    """The pack inside ComfyUI, ComfyUI's own nodes, and what the host tests have for both."""

    settings = memory = module("gradpaint.method.settings", PACK.__name__)
    loader = module("nodes.host.guided_diffusion", PACK.__name__)
    methods = module("nodes.host.sampling.methods", PACK.__name__)
    scenes = module("gradpaint.models.scenes", PACK.__name__)
    zoo, zoo_more, doors, sampling = module("zoo"), module("zoo_more"), module("entry_points"), module("sampling")
    samplers, utils, custom = (
        module(name) for name in ("comfy.samplers", "comfy.utils", "comfy_extras.nodes_custom_sampler")
    )
    DifferentialDiffusion = module("comfy_extras.nodes_differential_diffusion").DifferentialDiffusion


Host.utils.PROGRESS_BAR_ENABLED = False


def settings_of(settings, schedule: dict | None = None, alignment: dict | None = None, **values) -> dict:
    """Dictionaries of the table as the settings objects that they describe; settings: the module."""
    return {
        "schedule": settings.GuideSchedule(**schedule or {}),
        "alignment": settings.AlignmentSettings(**alignment or {}),
        **values,
    }
