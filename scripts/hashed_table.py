"""The runs of `run_hashes.py`: name -> arguments of `hashed_runs.library` or `hashed_runs.host`."""

FULL = dict(fraction=1.0)
EVERY_2, KEEP_2 = dict(fraction=1.0, every=2), dict(fraction=1.0, every=2, between="keep")
EARLY = dict(mode="adaptive", patience=0.0, minimum=0.0, tolerance=0.4)  # soon, so that it does stop

LIBRARY = {  # arguments of hashed_runs.library
    "method/combine_image ddim": dict(method="combine_image"),
    "method/combine_noisy ddpm": dict(method="combine_noisy", sampler="ddpm"),
    "method/repaint ddpm": dict(method="repaint", sampler="ddpm", options=dict(resamplings=3, jump_length=2)),
    "method/mcg ddim": dict(method="mcg", options=dict(step=0.5)),
    "method/dps ddpm": dict(method="dps", sampler="ddpm"),
    "method/gradpaint ddim": {},
    "method/gradpaint ddpm": dict(sampler="ddpm"),
    "method/gradpaint_fast ddpm": dict(method="gradpaint_fast", sampler="ddpm", steps=10),
    "method/gradpaint_full ddim": dict(method="gradpaint_full"),
    "mode/steps": dict(schedule=dict(mode="steps", steps=3), strength=2.0),
    "mode/adaptive": dict(schedule=EARLY, steps=12, sampler="ddpm"),
    "mode/adaptive every 2 keep": dict(schedule=EARLY | KEEP_2, steps=24),
    "mode/every 2 plain": dict(schedule=EVERY_2),
    "mode/every 3 keep": dict(schedule=KEEP_2 | dict(every=3), sampler="ddpm"),
    "gradient/model, two branches": dict(denoiser="classifier free"),
    "gradient/cond, two branches": dict(denoiser="classifier free", gradient="cond"),
    "gradient/x0": dict(gradient="x0", schedule=EARLY, steps=12, alignment=dict(lambda_al=0.5)),
    "loss/alpha, l2": dict(alpha=2.0, normalization="l2"),
    "loss/alpha, edge match with the paper's weight": dict(alpha=0.05, alignment=dict(lambda_al=400.0, softness=0.0)),
    "loss/decoded view": dict(denoiser="smooth", latent=True, alignment=dict(lambda_al=5.0, border_width=2)),
    "record/keep_x0, keep_gradients": dict(
        schedule=FULL, alignment=dict(lambda_al=0.5), options=dict(keep_x0=True, keep_gradients=[0, 2, 5])
    ),
    "record/nudges left out": dict(denoiser="broken"),
    "mask/soft": dict(mask="soft"),
    "mask/one for each": dict(mask="each", schedule=EARLY, steps=12),
    "start/given noise, no clip": dict(noise=4, options=dict(clip=None, full_noise=False)),
}

HOST = {  # arguments of hashed_runs.host
    **{
        f"family/{name}": dict(family=name, cfg=2.0, steps=4, schedule=FULL)
        for name in ("sd15", "sdxl", "sd35", "flux", "qwen_image", "z_image", "lumina2", "wan21", "ltxav")
    },
    "family/guided_diffusion": dict(family="guided_diffusion", steps=4, schedule=FULL),
    **{
        f"sampler/{name}": dict(sampler=name)
        for name in (
            "euler_ancestral",
            "dpmpp_2m",
            "heun",
            "ddim",
            "ddpm",
            "uni_pc",
            "dpmpp_sde",
            "lcm",
            "dpm_adaptive",
            "dpm_fast",
            "sa_solver",
            "sa_solver_pece",
            "dpmpp_2m_sde",
            "euler_cfg_pp",
        )
    },
    "sampler/uni_pc, flux": dict(family="flux", sampler="uni_pc", schedule=KEEP_2),
    "sampler/uni_pc, two parts": dict(family="flux", sampler="uni_pc", door="advanced", schedule=KEEP_2, cut=3),
    "sampler/dpm_adaptive, every 2 keep": dict(sampler="dpm_adaptive", schedule=KEEP_2),
    "sampler/leaves its plan": dict(door="stray", options=dict(copies=False), schedule=KEEP_2),
    "sampler/hands copies on": dict(door="stray", options=dict(copies=True), schedule=KEEP_2),
    "door/KSampler, denoise 0.5": dict(family="flux", options=dict(denoise=0.5)),
    "door/KSampler (Advanced), two parts": dict(family="flux", door="advanced"),
    "door/KSampler (Advanced), steps 1 to 4": dict(
        family="flux", door="advanced_window", options=dict(start_at_step=1, end_at_step=4)
    ),
    "door/Apply, KSampler": dict(family="flux", door="applied"),
    "door/Apply, KSampler (Advanced) twice": dict(family="flux", door="applied_advanced"),
    "door/Apply, SplitSigmas": dict(door="split_model", cut=3, schedule=dict(mode="steps", steps=5)),
    "door/Sampler, SamplerCustom": dict(family="flux", door="custom"),
    "door/Sampler, SamplerCustomAdvanced": dict(door="custom_advanced", cfg=2.0, sampler="dpmpp_2m"),
    "door/Sampler, SplitSigmas": dict(family="flux", door="split", cut=3, schedule=KEEP_2 | dict(mode="steps")),
    **{
        f"method/{name}": dict(door="method", sampler="euler_ancestral", options=dict(name=name))
        for name in ("combine_image", "combine_noisy", "repaint", "mcg", "dps", "gradpaint_fast")
    },
    "method/repaint, flux": dict(family="flux", door="method", options=dict(name="repaint")),
    "method/combine_noisy, noise left": dict(
        family="flux",
        door="method",
        options=dict(name="combine_noisy", end_at_step=3, return_with_leftover_noise="enable"),
    ),
    "method/mcg, soft mask": dict(family="guided_diffusion", door="method", mask="ramp", options=dict(name="mcg")),
    "mode/steps": dict(schedule=dict(mode="steps", steps=2), strength=2.0),
    "mode/adaptive": dict(family="bundled", steps=12, sampler="ddpm", schedule=EARLY),
    "mode/adaptive, uni_pc": dict(family="bundled", steps=12, sampler="uni_pc", schedule=EARLY),
    "mode/adaptive, batch": dict(family="bundled", steps=12, batch=2, schedule=EARLY),
    "mode/every 2 plain": dict(schedule=EVERY_2),
    "mode/every 2 keep": dict(schedule=KEEP_2, sampler="dpmpp_2m"),
    "mode/adaptive every 2 keep, two parts": dict(
        family="bundled", door="advanced", steps=12, scheduler="karras", cut=3, schedule=EARLY | KEEP_2
    ),
    "mode/adaptive, two parts": dict(family="bundled", door="advanced", steps=12, cut=3, schedule=EARLY, gradient="x0"),
    "gradient/cond": dict(cfg=4.0, gradient="cond"),
    "gradient/x0": dict(family="flux", cfg=4.0, gradient="x0"),
    "gradient/x0, nested latent": dict(family="ltxav", steps=3, gradient="x0"),
    "loss/alpha, l2": dict(alpha=2.0, normalization="l2"),
    "loss/strength 0": dict(strength=0.0),
    "loss/alignment, pixels": dict(family="guided_diffusion", alignment=dict(lambda_al=0.5)),
    "loss/alignment, latent": dict(
        family="flux", door="advanced", batch=2, mask="each", alignment=dict(lambda_al=0.5, space="latent")
    ),
    "loss/alignment, rgb": dict(alignment=dict(lambda_al=2.0, border_width=2, space="rgb")),
    "mask/soft": dict(mask="ramp"),
    "mask/one for each": dict(batch=2, mask="each", sampler="euler_ancestral"),
    "mask/Differential Diffusion": dict(family="flux", mask="ramp", differential=1.0, schedule=FULL),
    "mask/Differential Diffusion, two parts": dict(door="advanced", mask="ramp", differential=0.5),
    "record/pictures": dict(
        family="flux",
        schedule=FULL,
        alignment=dict(lambda_al=0.5, space="latent"),
        options=dict(keep_record="pictures"),
    ),
    "record/pictures, adaptive": dict(family="bundled", steps=12, schedule=EARLY, options=dict(keep_record="pictures")),
    "memory/low": dict(family="flux", memory=dict(mode="low memory")),
    "memory/lowest": dict(cfg=2.0, memory=dict(mode="lowest memory")),
    "memory/too little once": dict(family="flux", schedule=FULL, failures=1),
    "memory/too little for gradients": dict(failures=1, memory=dict(mode="fastest", allow_without_gradient=True)),
}

TABLE = {
    f"{place}/{name}": (place, given)
    for place, table in (("library", LIBRARY), ("host", HOST))
    for name, given in table.items()
}


# ---- hashes
