"""The dropdown `preset`: the library's settings through every entry point, and runs on pixels and on latents."""

import dataclasses
import importlib
import logging

import pytest
import torch
import zoo
from running import run

# node id: its module, and the function there that gets the settings as its second argument
ENTRY_POINTS = {
    "GradPaintKSampler": ("ksampler", "apply_gradpaint"),
    "GradPaintKSamplerAdvanced": ("ksampler_advanced", "ksample_segment"),
    "GradPaintSampler": ("sampler", "wrap_sampler"),
    "GradPaintApply": ("apply", "apply_gradpaint"),
}
PAPERS = ("paper", "paper-l2", "GradPaint-Fast", "latent-paper")


class SettingsTakenError(Exception):
    """Raised in place of a run."""


@pytest.fixture
def settings_of(pack, pack_nodes, monkeypatch):
    """The settings that a node hands on, with these inputs beside what it needs."""

    def settings(node_id: str, **inputs):
        name, function = ENTRY_POINTS[node_id]
        module = importlib.import_module(f"{pack.__name__}.nodes.{name}")
        taken = []

        def take(target, settings, *args, **kwargs):
            taken.append(settings)
            raise SettingsTakenError

        monkeypatch.setattr(module, function, take)
        node = pack_nodes[node_id]
        latent = {"samples": torch.zeros(1, 3, 16, 16), "noise_mask": torch.ones(1, 16, 16).tril()}
        needed = {"latent_image": latent, "model": None, "sampler": None, "positive": None, "negative": None}
        given = {item.id for item in node.GET_SCHEMA().inputs}
        with pytest.raises(SettingsTakenError):
            run(node, **{key: value for key, value in needed.items() if key in given}, **inputs)
        return taken[0]

    return settings


@pytest.mark.parametrize("node_id", ENTRY_POINTS)
def test_it_is_the_last_input_and_offers_the_librarys_presets(pack, pack_nodes, node_id):
    presets = pack.gradpaint.method.settings.PRESETS
    last = pack_nodes[node_id].GET_SCHEMA().inputs[-1]
    assert (last.id, last.default, last.optional) == ("preset", "custom", True)
    assert last.options == ["custom", *PAPERS] and set(PAPERS) == presets.keys() - {"default"}


@pytest.mark.parametrize("preset", PAPERS)
@pytest.mark.parametrize("node_id", ENTRY_POINTS)
def test_it_sets_what_the_library_sets(pack, settings_of, node_id, preset):
    """Whatever else the node's own widgets say, but for the gradient."""
    expected = pack.gradpaint.method.settings.PRESETS[preset]
    assert settings_of(node_id, preset=preset) == expected
    own = {"strength": 3.0, "alpha": 0.2, "normalization": "l2", "gradient": "cond"}
    assert settings_of(node_id, preset=preset, **own) == dataclasses.replace(expected, gradient="cond")


@pytest.mark.parametrize("node_id", ENTRY_POINTS)
def test_custom_goes_by_the_nodes_own_settings(pack, settings_of, node_id):
    settings = pack.gradpaint.method.settings
    assert settings_of(node_id) == settings_of(node_id, preset="custom") == settings.PRESETS["default"]
    alignment, schedule = settings.AlignmentSettings.paper(), settings.GuideSchedule.full()
    own = settings.GuidanceSettings(2.0, 0.2, "l2", alignment, schedule, "cond")
    inputs = dict(strength=2.0, alpha=0.2, normalization="l2", alignment=alignment, schedule=schedule, gradient="cond")
    assert settings_of(node_id, preset="custom", **inputs) == own


@pytest.mark.parametrize(
    "sockets, told",
    [
        (("alignment",), "but alignment is connected. Disconnect alignment, or set preset to 'custom'"),
        (("schedule",), "but schedule is connected. Disconnect schedule, or set preset to 'custom'"),
        (("alignment", "schedule"), "but alignment and schedule are connected. Disconnect alignment and schedule"),
    ],
)
@pytest.mark.parametrize("node_id", ENTRY_POINTS)
def test_a_preset_beside_a_connected_socket_is_an_error(pack, pack_nodes, node_id, sockets, told):
    settings = pack.gradpaint.method.settings
    made = {"alignment": settings.AlignmentSettings(), "schedule": settings.GuideSchedule()}
    latent = {"samples": torch.zeros(1, 3, 16, 16), "noise_mask": torch.ones(1, 16, 16).tril()}
    needed = {"latent_image": latent, "model": None, "sampler": None, "positive": None, "negative": None}
    node = pack_nodes[node_id]
    given = {item.id for item in node.GET_SCHEMA().inputs}
    inputs = {key: value for key, value in needed.items() if key in given}
    with pytest.raises(ValueError, match="preset is 'paper'") as error:
        run(node, **inputs, preset="paper", **{name: made[name] for name in sockets})
    assert told in str(error.value)


@pytest.mark.parametrize("preset", ["default", "Paper", ""])
def test_an_unknown_preset_is_an_error(pack, preset):
    inputs = importlib.import_module(f"{pack.__name__}.nodes.guidance_inputs")
    with pytest.raises(ValueError, match=f"preset is '{preset}', but must be one of: custom, paper"):
        inputs.guidance_settings(1.0, "rms", None, None, "model", 0.0, preset)


def test_apply_puts_it_into_the_model(pack, pack_nodes, tmp_path):
    model = zoo.build("sd15", pack, tmp_path)
    applied, _ = run(pack_nodes["GradPaintApply"], model=model, preset="GradPaint-Fast")
    wrapper = applied.get_all_wrappers("sampler_sample")[0]
    assert wrapper.method.settings == pack.gradpaint.method.settings.PRESETS["GradPaint-Fast"]


# ---- the paper's alignment loss by its own node


def test_the_alignment_node_makes_the_papers_loss(pack, pack_nodes):
    settings, node = pack.gradpaint.method.settings, pack_nodes["GradPaintAlignmentLoss"]
    assert [item.id for item in node.GET_SCHEMA().inputs][-2:] == ["loss", "fraction"]
    (made,) = run(node, lambda_al=400.0, softness=0.0, loss="alignment", fraction=0.45)
    assert made == settings.AlignmentSettings.paper()
    with pytest.raises(ValueError, match="loss is 'edges', but must be one of: edge-match, alignment"):
        run(node, loss="edges")
    with pytest.raises(ValueError, match=r"fraction is 1\.5, but must be a number between 0"):
        run(node, fraction=1.5)


def test_the_old_name_of_the_default_mode_is_understood_from_a_link(pack, pack_nodes):
    """A linked mode is no value in the prompt, so that nothing translates it."""
    assert run(pack_nodes["GradPaintEarlyStop"], mode="paper (first 45%)", every=2) == run(
        pack_nodes["GradPaintEarlyStop"], mode="default (first 45%)", every=2
    )


# ---- runs

STEPS = 10
GUIDED = {"paper": 10, "paper-l2": 10, "GradPaint-Fast": 5, "latent-paper": 10}
ALIGNED = {"paper": 4, "paper-l2": 4, "GradPaint-Fast": 4, "latent-paper": 0}  # 45%, halves down


@pytest.fixture(scope="module")
def runs(pack, pack_nodes, tmp_path_factory):
    """(family, preset) -> (result, record, log), each sampled once; preset None: no guidance."""
    folder, done = tmp_path_factory.mktemp("zoo"), {}
    models = {family: zoo.build(family, pack, folder) for family in ("guided_diffusion", "sd15")}

    def sampled(family: str, preset: str | None, caplog):
        if (family, preset) not in done:
            shape = zoo.SHAPES[family]
            samples = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
            mask = torch.zeros(1, *shape[-2:])
            mask[:, 4:12, 5:11] = 1
            caplog.clear()
            with caplog.at_level(logging.INFO), torch.inference_mode():
                result, record = run(
                    pack_nodes["GradPaintKSampler"],
                    model=models[family],
                    seed=3,
                    steps=STEPS,
                    cfg=1.0,
                    sampler_name="ddim",
                    scheduler="normal",
                    positive=zoo.conditioning(family),
                    negative=zoo.conditioning(family, seed=2),
                    latent_image={"samples": samples, "noise_mask": mask},
                    **({"preset": preset} if preset else {"strength": 0.0}),
                )
            done[family, preset] = result["samples"].clone(), record, caplog.text
        return done[family, preset]

    return sampled


@pytest.mark.parametrize("preset", PAPERS)
@pytest.mark.parametrize("family", ["guided_diffusion", "sd15"])
def test_it_runs_and_guides_the_steps_it_says(runs, caplog, family, preset):
    result, record, text = runs(family, preset, caplog)
    assert result.isfinite().all()
    assert [step.step for step in record.guided] == list(range(GUIDED[preset]))
    aligned = [bool((value != 0).any()) for value in record.losses("alignment")]
    count = ALIGNED[preset] if family == "guided_diffusion" else 0
    assert aligned == [True] * count + [False] * (GUIDED[preset] - count)
    assert ("is off; choose a space to turn it on" in text) == (family == "sd15" and preset != "latent-paper")


def test_what_the_presets_change(runs, caplog):
    """On latents the alignment loss is off in all of them; eq. 9 to the letter hardly moves anything."""
    of = lambda family, preset: runs(family, preset, caplog)[0]
    assert torch.equal(of("sd15", "paper"), of("sd15", "latent-paper"))
    assert not torch.equal(of("guided_diffusion", "paper"), of("guided_diffusion", "latent-paper"))
    for family in ("guided_diffusion", "sd15"):
        assert not torch.equal(of(family, "paper"), of(family, "GradPaint-Fast"))
        moved = {preset: (of(family, preset) - of(family, None)).norm() for preset in PAPERS}
        assert 0 < moved["paper-l2"] < 0.1 * moved["paper"]
