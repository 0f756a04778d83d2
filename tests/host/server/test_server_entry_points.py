"""The quickstart's problem through every entry point, as prompts to the real server."""

from __future__ import annotations

import copy

import pytest
from workflow_api import node_of

pytestmark = pytest.mark.slow

STEPS = 6
ENTRY_POINTS = ("KSampler", "Advanced", "Segments", "Apply", "Apply, custom", "Sampler, custom", "Sampler, advanced")


def through_every_entry_point(prompt: dict) -> dict:
    """Small prompts in one: {"shown <entry point>": its picture}."""
    prompt = copy.deepcopy(prompt)
    ours = node_of(prompt, "GradPaintKSampler")
    given = prompt[ours]["inputs"] | {"steps": STEPS, "sampler_name": "euler"}
    seed, denoise = given.pop("seed"), given.pop("denoise")
    masked = given["latent_image"]  # the encode node has put the mask into it
    run = {key: given[key] for key in ("cfg", "positive", "negative")}
    levels = {key: given[key] for key in ("model", "steps", "scheduler")}
    guided = {"strength": given["strength"], "normalization": given["normalization"]}
    patched, wrapped, sigmas, plain = (["patched", 0], ["wrapped", 0], ["sigmas", 0], ["plain", 0])
    whole = {
        **given,
        "noise_seed": seed,
        "add_noise": "enable",
        "start_at_step": 0,
        "end_at_step": 10_000,
        "return_with_leftover_noise": "disable",
    }
    custom = dict(run, noise_seed=seed, add_noise=True, sigmas=sigmas, latent_image=masked)
    advanced = dict(noise=["noise", 0], sigmas=sigmas, latent_image=masked)
    nodes = {
        "patched": ("GradPaintApply", {"model": given["model"], **guided}),
        "plain": ("KSamplerSelect", {"sampler_name": "euler"}),
        "wrapped": ("GradPaintSampler", {"sampler": plain, **guided}),
        "sigmas": ("BasicScheduler", {**levels, "denoise": denoise}),
        "noise": ("RandomNoise", {"noise_seed": seed}),
        "guider": ("CFGGuider", {**run, "model": given["model"]}),
        "KSampler": ("GradPaintKSampler", {**given, "seed": seed, "denoise": denoise}),
        "Advanced": ("GradPaintKSamplerAdvanced", whole),
        "first": ("GradPaintKSamplerAdvanced", {**whole, "end_at_step": 2, "return_with_leftover_noise": "enable"}),
        "Segments": (
            "GradPaintKSamplerAdvanced",
            {**whole, "start_at_step": 2, "add_noise": "disable", "latent_image": ["first", 0]},
        ),
        "Apply": (
            "KSampler",
            {
                **run,
                **levels,
                "model": patched,
                "seed": seed,
                "denoise": denoise,
                "sampler_name": "euler",
                "latent_image": masked,
            },
        ),
        "Apply, custom": ("SamplerCustom", {**custom, "model": patched, "sampler": plain}),
        "Sampler, custom": ("SamplerCustom", {**custom, "model": given["model"], "sampler": wrapped}),
        "Sampler, advanced": ("SamplerCustomAdvanced", {**advanced, "guider": ["guider", 0], "sampler": wrapped}),
    }
    prompt |= {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}
    return shown(prompt)


def shown(prompt: dict) -> dict:
    """The nodes of the prompt that the entry points need, and a picture of each one's latent."""
    vae, todo, keep = [node_of(prompt, "VAELoader"), 0], [], {}
    for name in ENTRY_POINTS:
        prompt["decoded " + name] = {"class_type": "VAEDecode", "inputs": {"samples": [name, 0], "vae": vae}}
        prompt["shown " + name] = {"class_type": "PreviewImage", "inputs": {"images": ["decoded " + name, 0]}}
        todo.append("shown " + name)
    while todo:
        key = todo.pop()
        keep[key] = prompt[key]
        todo += [value[0] for value in prompt[key]["inputs"].values() if isinstance(value, list)]
    return keep


def test_the_same_picture_through_every_entry_point(server, prompt):
    history = server.run(through_every_entry_point(prompt))
    assert history["status"]["status_str"] == "success", history["status"]
    pictures = {name: server.picture(history["outputs"]["shown " + name]["images"][0]) for name in ENTRY_POINTS}
    expected = pictures["KSampler"]
    assert expected.std() > 20
    for name, picture in pictures.items():
        assert abs(picture - expected).max() <= (1 if name == "Segments" else 0), name  # a level, by rounding
