"""How the runs of `run_hashes.py` are made: `library` and `host` make one and give (tensors, records)."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path

import torch
from hashed_modules import HOST_NODES, NODES, PACK, Host, Library, settings_of

# ---- the library


@functools.cache
def bundled():
    return Library.load_denoiser(Library.bundled_model_path())


def smooth(x, sigma):
    """A denoiser of any number of channels whose pixels depend on their neighbours."""
    return torch.tanh(x.roll(1, -1) + x + x.roll(1, -2)) / (1 + 0.1 * sigma)


def broken(x, sigma):
    """Its derivative is not finite in the first image."""
    return smooth(x, sigma) + torch.cat([0 * (x[:1] - x[:1]).sqrt(), 0 * x[1:]])


DENOISERS = {
    "bundled": bundled,
    "smooth": lambda: smooth,
    "broken": lambda: broken,
    "classifier free": lambda: Library.ClassifierFree(bundled(), smooth, 1.5),
}


def masks(kind: str, size: int):
    mask = torch.zeros(2 if kind == "each" else 1, 1, size, size)
    mask[:, :, size // 4 : 3 * size // 4, size // 4 : 2 * size // 3] = 1
    if kind == "each":
        mask[1] = mask[1].transpose(-1, -2).roll(3, -1)
    return mask if kind != "soft" else torch.nn.functional.avg_pool2d(mask, 5, stride=1, padding=2)


def library(
    method="gradpaint",
    denoiser="bundled",
    steps=8,
    mask="hole",
    sampler="ddim",
    latent=False,
    noise=None,
    options=None,
    **settings,
):
    """options: of the method; settings: of the guidance. latent: 4 channels, seen through a view."""
    size, options = 24, dict(options or {})
    model, mask = DENOISERS[denoiser](), masks(mask, size)
    y = Library.scenes.landscapes([Library.scenes.HELD_OUT_SEEDS[i] for i in (3, 8)], size)
    if latent:
        y, factors = torch.cat([y, y[:, :1]], 1), torch.linspace(-1, 1, 12).view(4, 3)
        options |= {"view": Library.view(Library.LinearRGB(factors), y, mask, 2), "clip": None}
    if noise is not None:
        options["noise"] = torch.randn(y.shape, generator=torch.Generator().manual_seed(noise))
    result = Library.methods.get_method(method).run(
        model,
        y,
        mask,
        sigmas=Library.spaced_sigmas(bundled().sigmas, steps),
        seed=5,
        sampler=sampler,
        settings=Library.settings.GuidanceSettings(**settings_of(Library.settings, **settings)),
        **options,
    )
    return [result.image], [result]


# ---- the host


@functools.cache
def host_model(family: str):
    """The zoo's model of the family; "bundled": the pack's own."""
    if family == "bundled":
        with torch.inference_mode():
            return Host.loader.load_model(str(Host.loader.checkpoint_path(Host.loader.BUNDLED)))
    if family in Host.zoo_more.FAMILIES:
        return Host.zoo_more.build(family)
    with tempfile.TemporaryDirectory() as folder:
        return Host.zoo.build(family, PACK, Path(folder))


def host_case(family: str, batch: int, model, **changes):
    """The inpainting problem of the tests' zoo: a Case of entry_points."""
    shapes = {**Host.zoo_more.SHAPES, **Host.zoo.SHAPES, "bundled": (1, 3, 32, 32)}
    known = Host.zoo_more if family in Host.zoo_more.FAMILIES else Host.zoo
    positive, negative = (known.conditioning(family, seed) for seed in (1, 2))
    _, latent, mask = Host.sampling.problem(family, batch, shapes=shapes)
    if family == "bundled":
        positive = negative = Host.loader.conditioning(None)
        latent = Host.scenes.landscapes([Host.scenes.HELD_OUT_SEEDS[i] for i in (3, 8)[:batch]], 32)
        mask[..., 10:22, 8:20] = 1
    given, mask = (
        ({"samples": latent, "noise_mask": mask}, None) if latent.is_nested else ({"samples": latent}, mask[:, 0])
    )
    return Host.doors.Case(model, given, mask, positive, negative, **changes)


def ksampler(case, cut, **changes):
    out, record = Host.doors.ksampler(NODES, case, **changes)
    return [out], [record]


def advanced(case, cut):
    first, before = Host.doors.advanced(NODES, case, end_at_step=cut, return_with_leftover_noise="enable")
    rest = [
        Host.doors.advanced(NODES, case, latent_image=first, start_at_step=cut, add_noise="disable", mask=None)
        for _ in range(2)
    ]  # the host may run a node again on what it has kept of the one before
    return [first, *(latent for latent, _ in rest)], [before, *(record for _, record in rest)]


def advanced_window(case, cut, **changes):
    out, record = Host.doors.advanced(NODES, case, **changes)
    return [out], [record]


def applied(case, cut):
    model, record = Host.doors.apply(NODES, case)
    return [Host.doors.host_ksampler(HOST_NODES, case, model)], [record.last]


def applied_advanced(case, cut):
    model, live = Host.doors.apply(NODES, case)
    first = Host.doors.host_advanced(HOST_NODES, case, model, end_at_step=cut, return_with_leftover_noise="enable")
    before = live.last
    last = Host.doors.host_advanced(HOST_NODES, case, model, latent_image=first, start_at_step=cut, add_noise="disable")
    return [first, last], [before, live.last]


def custom(case, cut, inner=None):
    sampler, record = Host.doors.sampler(NODES, case, inner)
    return [Host.doors.custom(case, case.model, sampler)], [record.last]


def stray(case, cut, copies):
    """With a sampler that leaves its dry run's plan, or (copies) that hands the model copies of its state."""

    @torch.no_grad()
    def sample_stray(model, x, sigmas, extra_args=None, callback=None, disable=None):
        real = False
        for i in range(len(sigmas) - 1):
            level = sigmas[i] * x.new_ones([len(x)])
            x0 = model(x.clone() if real and copies else x, level, **extra_args)
            real = bool(x0.abs().max() > 0)  # never in a dry run
            x0 = model(x, level, **extra_args) if real and not copies else x0
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x0})
            x = x0 + (x - x0) * (sigmas[i + 1] / sigmas[i])
        return x

    return custom(case, cut, Host.samplers.KSAMPLER(sample_stray))


def custom_advanced(case, cut):
    sampler, record = Host.doors.sampler(NODES, case)
    return list(Host.doors.custom_advanced(case, Host.doors.cfg_guider(case, case.model), sampler)), [record.last]


def split(case, cut):
    return _split(case, cut, case.model, *Host.doors.sampler(NODES, case))


def split_model(case, cut):
    model, live = Host.doors.apply(NODES, case)
    return _split(case, cut, model, Host.doors.plain_sampler(case), live)


def _split(case, cut, model, sampler, live):
    """SplitSigmas and SamplerCustom twice."""
    latents, records = [case.masked], []
    for sigmas in Host.custom.SplitSigmas.execute(Host.doors.sigmas(case), cut).args:
        with torch.inference_mode():
            latents.append(
                Host.custom.SamplerCustom.execute(
                    model, not records, case.seed, case.cfg, case.positive, case.negative, sampler, sigmas, latents[-1]
                ).args[0]
            )
        records.append(live.last)
    return latents[1:], records


def method(case, cut, name, **window):
    """By the node, and once more for the record, which the node does not put out. window: of KSampler (Advanced)."""
    options, records = dict(resamplings=3, jump_length=2, step=1.0, zeta=0.5), []
    models = (
        NODES["GradPaintInpaintMethod"].execute(case.model, name, **options).args[0],
        Host.methods.apply_method(case.model, name, **options, on_record=records.append),
    )
    return [Host.doors.host_advanced(HOST_NODES, case, model, **window) for model in models], records


@contextlib.contextmanager
def out_of_memory(model, times: int):
    """The first evaluations with a graph fail."""
    left = [times]

    def fail(*_):
        if torch.is_grad_enabled() and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("as on a device whose memory is short")

    handle = model.model.diffusion_model.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


DOORS = {
    function.__name__: function
    for function in (
        ksampler,
        advanced,
        applied,
        applied_advanced,
        custom,
        custom_advanced,
        advanced_window,
        split,
        split_model,
        stray,
        method,
    )
}


def host(
    family="sd15",
    door="ksampler",
    sampler="euler",
    steps=6,
    cfg=1.0,
    batch=1,
    cut=2,
    mask="hole",
    memory=None,
    differential=None,
    failures=0,
    scheduler="normal",
    options=None,
    **settings,
):
    """door: see DOORS, with its options; cut: step after which a run in two parts is cut; failures: of evaluations for
    lack of memory; settings: of the guidance."""
    model = host_model(family)
    if differential is not None:
        model = Host.DifferentialDiffusion.execute(model, differential).args[0]
    given = settings_of(Host.settings, **settings)
    if memory is not None:
        given["memory"] = Host.memory.MemorySettings(**memory)
    case = host_case(family, batch, model, steps=steps, cfg=cfg, sampler=sampler, scheduler=scheduler, settings=given)
    if mask == "ramp":
        case.mask = torch.linspace(0, 1, 16).expand(1, 16, 16).contiguous()
    elif mask == "each":
        case.mask = torch.cat([case.mask, case.mask.transpose(1, 2)])
    with out_of_memory(model, failures):
        latents, records = DOORS[door](case, cut, **options or {})
    return [Host.sampling.packed(latent["samples"]) for latent in latents], records
