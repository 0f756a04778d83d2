"""One inpainting problem through each of the pack's entry points, and through the host's own nodes."""

from __future__ import annotations

import dataclasses

import torch
import zoo
from sampling import problem

# Inputs of GradPaint KSampler (Advanced) for the first and the last of two segments, split after step 2.
FIRST = dict(end_at_step=2, return_with_leftover_noise="enable")
LAST = dict(start_at_step=2, add_noise="disable", mask=None)


@dataclasses.dataclass
class Case:
    """What a sampling node is given, the host's names. mask: (B, H, W); settings: the inputs of `guidance_inputs`."""

    model: object
    latent: dict
    mask: torch.Tensor
    positive: list
    negative: list
    seed: int = 3
    steps: int = 4
    cfg: float = 1.0
    sampler: str = "euler"
    scheduler: str = "normal"
    settings: dict = dataclasses.field(default_factory=dict)

    @property
    def masked(self) -> dict:
        return {**self.latent, "noise_mask": self.mask}

    def guided(self) -> dict:
        return {"strength": 1.0, "normalization": "rms", **self.settings}

    def run_inputs(self) -> dict:
        """Of all nodes that are KSamplers."""
        return dict(
            steps=self.steps,
            cfg=self.cfg,
            sampler_name=self.sampler,
            scheduler=self.scheduler,
            positive=self.positive,
            negative=self.negative,
        )


def case(family: str, model, batch: int = 1, **changes) -> Case:
    _, latent, mask = problem(family, batch)
    return Case(
        model, {"samples": latent}, mask[:, 0], zoo.conditioning(family), zoo.conditioning(family, seed=2), **changes
    )


def ksampler(nodes, case: Case, **changes):
    """(LATENT, record)."""
    inputs = dict(
        model=case.model,
        latent_image=case.latent,
        mask=case.mask,
        seed=case.seed,
        denoise=1.0,
        **case.run_inputs(),
        **case.guided(),
    )
    with torch.inference_mode():
        return nodes["GradPaintKSampler"].execute(**{**inputs, **changes}).args


def advanced(nodes, case: Case, **changes):
    """(LATENT, record)."""
    inputs = dict(
        model=case.model,
        latent_image=case.latent,
        mask=case.mask,
        noise_seed=case.seed,
        add_noise="enable",
        start_at_step=0,
        end_at_step=10_000,
        return_with_leftover_noise="disable",
        **case.run_inputs(),
        **case.guided(),
    )
    with torch.inference_mode():
        return nodes["GradPaintKSamplerAdvanced"].execute(**{**inputs, **changes}).args


def in_segments(nodes, problem, *cuts, **changes):
    """(LATENT, records) of a run split into segments after these steps."""
    ends, latent, records = [*cuts, 10_000], problem.latent, []
    for i, (start, end) in enumerate(zip([0, *cuts], ends)):
        later = dict(add_noise="disable", mask=None) if i else {}
        last = end == 10_000
        latent, record = advanced(
            nodes,
            problem,
            latent_image=latent,
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise="disable" if last else "enable",
            **later,
            **changes,
        )
        records.append(record)
    return latent, records


def apply(nodes, case: Case, **changes):
    """(MODEL, LiveRecord)."""
    return nodes["GradPaintApply"].execute(model=case.model, **case.guided(), **changes).args


def sampler(nodes, case: Case, inner=None, **changes):
    """(SAMPLER, LiveRecord)."""
    from comfy_extras.nodes_custom_sampler import KSamplerSelect

    inner = KSamplerSelect.execute(case.sampler).args[0] if inner is None else inner
    return nodes["GradPaintSampler"].execute(sampler=inner, **{**case.guided(), **changes}).args


def host_ksampler(host, case: Case, model):
    with torch.inference_mode():
        return host.KSampler().sample(
            model=model, seed=case.seed, latent_image=case.masked, denoise=1.0, **case.run_inputs()
        )[0]


def host_advanced(host, case: Case, model, **changes):
    inputs = dict(
        model=model,
        add_noise="enable",
        noise_seed=case.seed,
        latent_image=case.masked,
        start_at_step=0,
        end_at_step=10_000,
        return_with_leftover_noise="disable",
        **case.run_inputs(),
    )
    with torch.inference_mode():
        return host.KSamplerAdvanced().sample(**{**inputs, **changes})[0]


def custom(case: Case, model, sampler):
    """SamplerCustom."""
    import comfy_extras.nodes_custom_sampler as nodes

    with torch.inference_mode():
        return nodes.SamplerCustom.execute(
            model, True, case.seed, case.cfg, case.positive, case.negative, sampler, sigmas(case), case.masked
        ).args[0]


def custom_advanced(case: Case, guider, sampler, latent: dict | None = None):
    """SamplerCustomAdvanced: (LATENT, its denoised one)."""
    import comfy_extras.nodes_custom_sampler as nodes

    with torch.inference_mode():
        noise = nodes.RandomNoise.execute(case.seed).args[0]
        return nodes.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas(case), latent or case.masked).args


def cfg_guider(case: Case, model):
    import comfy_extras.nodes_custom_sampler as nodes

    return nodes.CFGGuider.execute(model, case.positive, case.negative, case.cfg).args[0]


def sigmas(case: Case):
    import comfy_extras.nodes_custom_sampler as nodes

    return nodes.BasicScheduler.execute(case.model, case.scheduler, case.steps, 1.0).args[0]


def plain_sampler(case: Case):
    import comfy_extras.nodes_custom_sampler as nodes

    return nodes.KSamplerSelect.execute(case.sampler).args[0]


def through_every_entry_point(nodes, host, case: Case) -> dict[str, torch.Tensor]:
    """Samples by the name of the entry point."""
    patched = apply(nodes, case)[0]
    latents = {
        "GradPaint KSampler": ksampler(nodes, case)[0],
        "GradPaint KSampler (Advanced)": advanced(nodes, case)[0],
        "Apply, KSampler": host_ksampler(host, case, patched),
        "Apply, KSampler (Advanced)": host_advanced(host, case, patched),
        "Apply, SamplerCustom": custom(case, patched, plain_sampler(case)),
        "Apply, SamplerCustomAdvanced": custom_advanced(case, cfg_guider(case, patched), plain_sampler(case))[0],
        "GradPaint Sampler, SamplerCustom": custom(case, case.model, sampler(nodes, case)[0]),
        "GradPaint Sampler, SamplerCustomAdvanced": custom_advanced(
            case, cfg_guider(case, case.model), sampler(nodes, case)[0]
        )[0],
    }
    return {name: latent["samples"] for name, latent in latents.items()}
