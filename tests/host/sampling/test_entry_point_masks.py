"""Masks as they come in: full and empty ones, batches, grey ones, Differential Diffusion; through every entry point."""

import entry_points
import pytest
import torch
import zoo
from entry_points import case


@pytest.fixture(scope="module")
def model(pack):
    return zoo.flux(0)


@pytest.fixture
def problem(comfy_host, model):
    return case("flux", model)


# ---- nothing to keep, nothing to repaint


@pytest.mark.parametrize("entry_point", [entry_points.ksampler, entry_points.advanced])
@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_the_ksamplers_refuse_full_and_empty_masks(pack_nodes, problem, entry_point, denoise):
    changes = {"denoise": denoise} if entry_point is entry_points.ksampler else {}
    problem.mask = torch.ones(1, 16, 16)
    with pytest.raises(ValueError, match=r"nothing to keep.*\(1, 1, 16, 16\).*1 everywhere.*Invert Mask.*KSampler"):
        entry_point(pack_nodes, problem, **changes)
    problem.mask = torch.zeros(1, 16, 16)
    with pytest.raises(ValueError, match=r"nothing to repaint.*\(1, 16, 16\)"):
        entry_point(pack_nodes, problem, **changes)


@pytest.mark.parametrize(
    "value, said",
    [(1.0, "1 everywhere, so there is nothing to keep"), (0.0, "0 everywhere, so there is nothing to repaint")],
)
@pytest.mark.parametrize("entry_point", ["apply", "sampler"])
def test_the_other_entry_points_warn_and_sample_plainly(pack_nodes, problem, entry_point, value, said, caplog):
    problem.mask = torch.full((1, 16, 16), value)
    plain = entry_points.custom(problem, problem.model, entry_points.plain_sampler(problem))["samples"]
    model, sampler = problem.model, entry_points.plain_sampler(problem)
    if entry_point == "apply":
        model, record = entry_points.apply(pack_nodes, problem)
    else:
        sampler, record = entry_points.sampler(pack_nodes, problem)
    graphs = []
    handle = problem.model.model.diffusion_model.register_forward_hook(
        lambda module, args, out: graphs.append(out.requires_grad)
    )
    try:
        with caplog.at_level("WARNING"):
            out = entry_points.custom(problem, model, sampler)["samples"]
    finally:
        handle.remove()
    assert torch.equal(out, plain) and graphs == [False] * 4 and record.last.steps == 0
    assert caplog.text.count(said) == 1


def test_a_mask_that_is_almost_full_or_grey_everywhere_is_taken(pack_nodes, problem):
    problem.mask = torch.full((1, 16, 16), 0.5)
    assert entry_points.ksampler(pack_nodes, problem)[0]["samples"].isfinite().all()
    problem.mask = torch.ones(1, 16, 16)
    problem.mask[0, 0, 0] = 0
    out = entry_points.ksampler(pack_nodes, problem)[0]["samples"]
    assert torch.allclose(out[..., 0, 0], problem.latent["samples"][..., 0, 0], atol=1e-6)


# ---- batches


@pytest.mark.parametrize("schedule", ["fraction", "adaptive"])
@pytest.mark.parametrize("entry_point", [entry_points.ksampler, entry_points.advanced])
def test_empty_and_full_masks_among_others_in_a_batch(comfy_host, pack, pack_nodes, model, entry_point, schedule):
    """Each image is what it is by itself: with the empty mask the given one, with the full one a plain run's."""
    problem = case(
        "flux",
        model,
        batch=3,
        steps=5,
        settings={"schedule": pack.gradpaint.method.settings.GuideSchedule(mode=schedule)},
    )
    hole = problem.mask[0]
    problem.mask = torch.stack([torch.zeros_like(hole), hole, torch.ones_like(hole)])
    out, record = entry_point(pack_nodes, problem)
    given, out = problem.latent["samples"], out["samples"]
    assert out.isfinite().all() and record.skipped == 0
    assert all(values.isfinite().all() for values in record.losses("total"))
    assert float(record.guided[0].gradient_rms[2]) == 0  # nothing is known of it
    assert torch.allclose(out[0], given[0], atol=1e-6)
    problem.latent, problem.mask = {"samples": given[1:2], "batch_index": [1]}, hole[None]
    assert torch.allclose(out[1], entry_point(pack_nodes, problem)[0]["samples"][0], atol=1e-4)
    problem.latent, problem.mask = {"samples": torch.zeros_like(given[2:]), "batch_index": [2]}, torch.ones(1, 16, 16)
    assert torch.allclose(out[2], entry_points.host_ksampler(comfy_host, problem, model)["samples"][0], atol=1e-4)


@pytest.mark.parametrize("entry_point", [entry_points.ksampler, entry_points.advanced])
def test_every_image_of_a_batch_is_what_it_is_alone(pack_nodes, model, entry_point):
    """With a mask each, and with one mask for all."""
    problem = case("flux", model, batch=2, cfg=2.0)
    latents, hole = problem.latent["samples"], problem.mask
    for masks in (torch.cat([hole, hole.transpose(1, 2)]), hole):
        problem.latent, problem.mask = {"samples": latents}, masks
        together = entry_point(pack_nodes, problem)[0]["samples"]
        for i in range(2):
            problem.latent = {"samples": latents[i : i + 1], "batch_index": [i]}
            problem.mask = masks[i % len(masks)][None]
            assert torch.allclose(together[i : i + 1], entry_point(pack_nodes, problem)[0]["samples"], atol=1e-4)


def test_a_mask_of_another_size_than_the_latent(pack_nodes, problem):
    """128 x 128 pixels over 16 x 16 cells, as a painted mask comes."""
    small = entry_points.ksampler(pack_nodes, problem)[0]["samples"]
    problem.mask = problem.mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    large = entry_points.ksampler(pack_nodes, problem)[0]["samples"]
    assert torch.allclose(small, large, atol=1e-5)


# ---- Differential Diffusion


def differential(model, strength: float = 1.0):
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    return DifferentialDiffusion.execute(model, strength).args[0]


def watched(model):
    """(a copy of the model, [mask at each evaluation])."""
    model, seen = model.clone(), []
    function = model.model_options["denoise_mask_function"]

    def spy(*args, **kwargs):
        seen.append(function(*args, **kwargs))
        return seen[-1]

    model.set_model_denoise_mask_function(spy)
    return model, seen


RAMP = torch.linspace(0, 1, 16).expand(1, 16, 16).contiguous()


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_differential_diffusion_sets_free_as_in_the_host_through_every_entry_point(
    comfy_host, pack_nodes, model, strength
):
    """The same thresholds at the same steps, the same picture, and where nothing is set free the given one."""
    problem = case("flux", differential(model, strength), steps=6)
    problem.mask = RAMP.clone()
    patched, theirs = watched(problem.model)
    plain = entry_points.host_ksampler(comfy_host, problem, patched)["samples"]
    problem.model, ours = watched(problem.model)
    found = entry_points.through_every_entry_point(pack_nodes, comfy_host, problem)
    assert len(theirs) == 6 and len(ours) == 6 * len(found)
    for i, mask in enumerate(ours):
        assert torch.equal(mask, theirs[i % 6])
    shares = [float(mask.mean()) for mask in theirs]
    assert shares == sorted(shares) and shares[0] < 0.4 < 0.6 < shares[-1]
    assert all(torch.equal(picture, found["GradPaint KSampler"]) for picture in found.values())
    picture = found["GradPaint KSampler"]
    assert picture.isfinite().all() and not torch.allclose(picture, plain, atol=1e-3)


@pytest.mark.parametrize("order", ["before", "after"])
def test_differential_diffusion_before_and_after_apply(pack_nodes, model, order):
    problem = case("flux", model, steps=6)
    problem.mask = RAMP.clone()
    if order == "after":
        patched = differential(entry_points.apply(pack_nodes, problem)[0])
    else:
        problem.model = differential(model)
        patched = entry_points.apply(pack_nodes, problem)[0]
    out = entry_points.custom(problem, patched, entry_points.plain_sampler(problem))["samples"]
    problem.model = differential(model)
    assert torch.equal(out, entry_points.ksampler(pack_nodes, problem)[0]["samples"])


def test_differential_diffusion_in_parts_has_the_whole_runs_thresholds(pack_nodes, model):
    problem = case("flux", differential(model), steps=6)
    problem.mask = RAMP.clone()
    whole = entry_points.ksampler(pack_nodes, problem)[0]["samples"]
    first = entry_points.advanced(pack_nodes, problem, end_at_step=2, return_with_leftover_noise="enable")[0]
    last = entry_points.advanced(
        pack_nodes, problem, latent_image=first, start_at_step=2, add_noise="disable", mask=None
    )
    assert torch.allclose(last[0]["samples"], whole, atol=1e-5)


def test_what_is_not_set_free_is_guided_towards(pack_nodes, model, pack):
    """The loss of a guided step is of what is held at that step, by hand."""
    problem = case(
        "flux", differential(model), steps=6, settings={"schedule": pack.gradpaint.method.settings.GuideSchedule.full()}
    )
    problem.mask = RAMP.clone()
    problem.model, masks = watched(problem.model)
    record = entry_points.ksampler(pack_nodes, problem, keep_record="pictures")[1]
    given = model.model.process_latent_in(problem.latent["samples"])
    for i, mask in list(enumerate(masks))[:5]:
        held = 1 - mask.expand_as(given)
        expected = ((record.x0_hat[i] - given) ** 2 * held).sum() / held.sum()
        assert float(record.losses("mse")[i]) == pytest.approx(float(expected), rel=1e-4)
