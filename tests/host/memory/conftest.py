"""Fixtures of the memory ladder's tests: a model of ten blocks, and guided runs of it in a small memory."""

import importlib

import pytest
import torch
import zoo
from live_memory import LiveMemory
from sampling import problem, sample, schedule


@pytest.fixture(scope="module")
def modules(pack):
    names = dict(
        checkpoint="memory.checkpoint",
        device_memory="memory.device_memory",
        guidance="sampling.wrapper",
        memory="memory.ladder",
        sizes="memory.sizes",
    )
    host = {name: importlib.import_module(f"{pack.__name__}.nodes.host.{path}") for name, path in names.items()}
    return type(
        "Modules",
        (),
        {**host, "settings": pack.gradpaint.method.settings, "MemorySettings": host["memory"].MemorySettings},
    )


@pytest.fixture(scope="module")
def flux():
    """A model with ten blocks, so that a single one matters."""
    import comfy.supported_models

    with torch.inference_mode():
        config = comfy.supported_models.Flux(
            dict(
                image_model="flux",
                in_channels=16,
                out_channels=16,
                patch_size=2,
                vec_in_dim=768,
                context_in_dim=4096,
                hidden_size=128,
                mlp_ratio=4.0,
                num_heads=2,
                depth=2,
                depth_single_blocks=8,
                axes_dim=[16, 24, 24],
                theta=10000,
                qkv_bias=True,
                guidance_embed=True,
                txt_ids_dims=[],
            )
        )
        config.set_inference_dtype(torch.float32, None)
        return zoo._patcher(config.get_model({}), 0)


@pytest.fixture
def run(modules, monkeypatch):
    """A function that runs guided steps only, in a memory of `limit` bytes of which the host reports `free()` as free.

    By default it reports the truth. Returns (picture, RunRecord, LiveMemory).
    """

    def run(
        model, mode="auto", limit=float("inf"), free=None, allow=False, family="flux", cfg=1.0, callback=None, **changes
    ):
        memory = LiveMemory(limit)
        reported = free or (lambda: min(memory.limit, 2**60) - memory.live)
        to_host = modules.device_memory.to_host

        def moved(tensor):
            with memory.elsewhere():
                return to_host(tensor)

        settings = modules.settings.GuidanceSettings(schedule=modules.settings.GuideSchedule.full(), **changes)
        records = []
        guided = modules.guidance.apply_gradpaint(model, settings, records.append, modules.MemorySettings(mode, allow))
        noise, latent, mask = problem(family)
        with monkeypatch.context() as patch:
            patch.setattr(modules.device_memory, "free_memory", lambda model, device: reported())
            patch.setattr(modules.device_memory, "to_host", moved)
            try:
                with memory:
                    out = sample(
                        guided,
                        family,
                        "euler_ancestral",
                        schedule(model, "euler_ancestral", 3),
                        noise,
                        latent,
                        mask,
                        cfg=cfg,
                        callback=callback and (lambda *args: callback(memory, *args)),
                    )
            finally:
                assert not any("forward" in vars(module) for module in model.model.modules())
        return out, records[0], memory

    return run


@pytest.fixture(scope="module")
def plain(flux, modules):
    """The picture that plain backward gives."""
    settings = modules.settings.GuidanceSettings(schedule=modules.settings.GuideSchedule.full())
    guided = modules.guidance.apply_gradpaint(flux, settings, memory=modules.MemorySettings("fastest"))
    noise, latent, mask = problem("flux")
    return sample(guided, "flux", "euler_ancestral", schedule(flux, "euler_ancestral", 3), noise, latent, mask)


@pytest.fixture
def peaks(run, flux):
    """A run's peak memory, by mode."""
    return {mode: run(flux, mode=mode)[2].peak for mode in ("fastest", "low memory", "lowest memory")}
