"""One plan: the library and ComfyUI make the same run from the same noise, in every mode, to the last number told."""

import itertools

import pytest
import torch
from sampling import sample, schedule

from gradpaint.guided_diffusion import load_denoiser
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from gradpaint.models import bundled_model_path
from gradpaint.sampling.inpaint import inpaint

STEPS = 10
EARLY = {"minimum": 0.0, "patience": 0.0, "tolerance": 0.3}  # ends before the run does
MODES = [{"mode": "fraction", "fraction": 0.6}, {"mode": "steps", "steps": 5}, {"mode": "adaptive", **EARLY}]
SPARSE = [(1, "plain"), (2, "plain"), (2, "keep"), (3, "keep")]
ENDS = [1.0, 0.3]


@pytest.fixture(scope="module")
def model(pack):
    loader = pack.nodes.host.guided_diffusion
    with torch.inference_mode():
        return loader.load_model(str(loader.checkpoint_path(loader.BUNDLED)))


@pytest.fixture(scope="module")
def problem(pack):
    scenes = pack.gradpaint.models.scenes
    images = scenes.landscapes([scenes.HELD_OUT_SEEDS[i] for i in (3, 8)], 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10:22, 8:20] = 1
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(1)), images, mask


def options(mode, every, between, end):
    return {"schedule": dict(mode, every=every, between=between), "alignment": {"lambda_al": 0.3, "fraction": end}}


def both(pack, tools, model, given, y, mask, noise):
    """(picture, record) of the host's euler and of the library's ddim."""
    sigmas = schedule(model, "euler", STEPS)
    host = tools.settings
    settings = host.GuidanceSettings(
        schedule=host.GuideSchedule(**given["schedule"]), alignment=host.AlignmentSettings(**given["alignment"])
    )
    records = []
    patched = tools.guidance.apply_gradpaint(model, settings, records.append)
    conditioning = lambda family, seed=1: pack.nodes.host.guided_diffusion.conditioning(None)
    theirs = sample(patched, "guided_diffusion", "euler", sigmas, noise, y, mask, conditioning=conditioning)
    settings = GuidanceSettings(
        schedule=GuideSchedule(**given["schedule"]), alignment=AlignmentSettings(**given["alignment"])
    )
    denoiser = load_denoiser(bundled_model_path())
    ours = inpaint(denoiser, y, mask, sigmas=sigmas, noise=noise, settings=settings, progress=False)
    return (theirs, records[0]), (ours.image, ours)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode["mode"])
@pytest.mark.parametrize("end", ENDS)
def test_library_and_host_agree(pack, tools, model, problem, mode, end):
    noise, y, mask = problem
    ended_early = 0
    for every, between in SPARSE:
        given = options(mode, every, between, end)
        (host_picture, host), (picture, library) = both(pack, tools, model, given, y, mask, noise)
        assert torch.allclose(host_picture, picture, atol=2e-4), (every, between)
        assert (host.evaluations, host.backwards, host.skipped) == (
            library.evaluations,
            library.backwards,
            library.skipped,
        )
        assert vars(host.stop) == vars(library.stop)  # of one class, imported twice
        for step, other in itertools.zip_longest(host.history, library.record):
            assert (step.step, step.kind.value) == (other.step, other.kind.value), (every, between)
            assert step.sigma == pytest.approx(other.sigma, rel=1e-5)
            assert step.losses.keys() == other.losses.keys()
            for name, values in step.losses.items():
                assert torch.allclose(values, other.losses[name], rtol=2e-3, atol=1e-5), (name, step.step)
            if step.guided:
                assert torch.allclose(step.gradient_rms, other.gradient_rms, rtol=2e-3)
        ends = round(end * STEPS)
        for step in library.record:
            if step.guided:
                assert bool(step.losses["alignment"].any()) is (step.step < ends), step.step
        ended_early += host.stop.reason == "loss"
    assert (ended_early > 0) is (mode["mode"] == "adaptive")
