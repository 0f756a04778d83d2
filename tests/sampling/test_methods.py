"""What all methods of the paper have in common: known pixels, no leaks, costs, records, errors."""

import subprocess
import sys

import pytest
import torch

from gradpaint.method.settings import GuidanceSettings, GuideSchedule
from gradpaint.sampling.methods import METHODS, get_method

SIGMAS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.0])
SAMPLED = [name for name, method in METHODS.items() if not method.oracle]
COSTS = {  # 6 steps, settings that guide all: evaluations, backward passes
    "combine_image": (6, 0),
    "combine_noisy": (6, 0),
    "repaint": (6 + 9 * 5, 0),
    "mcg": (6, 6),
    "dps": (6, 6),
    "gradpaint": (6, 6),
    "gradpaint_fast": (6, 3),
    "gradpaint_full": (6, 6),
    "copy": (0, 0),
    "latent_copy": (0, 0),
    "greyfill": (0, 0),
}


def coupled(x, sigma):
    """Every pixel's x0_hat depends on its neighbours."""
    return torch.tanh(x.roll(1, -1) + x + x.roll(1, -2)) / (1 + 0.1 * sigma)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(1)
    y = torch.rand(2, 3, 12, 10, generator=generator) * 2 - 1
    mask = torch.zeros(2, 1, 12, 10)
    mask[0, :, 3:8, 2:7] = 1
    mask[1, :, 5:, 4:] = 1
    return y, mask


def run(name, y, mask, **arguments):
    given = {
        "sigmas": SIGMAS,
        "settings": GuidanceSettings(schedule=GuideSchedule.full()),
        "image": y,
        "codec": (lambda image: image / 2, lambda latent: latent),
        **arguments,
    }
    return get_method(name).run(coupled, y, mask, **given)


def test_every_method_has_a_cost_here():
    assert set(COSTS) == set(METHODS)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("name", METHODS)
def test_known_pixels_costs_and_records(case, name, sampler):
    y, mask = case
    seen = []
    result = run(name, y, mask, sampler=sampler, callback=seen.append)
    known = (mask == 0).expand_as(y)
    assert torch.equal(result.image[known], y[known]) or name == "latent_copy"  # which pastes nothing back
    assert result.image.isfinite().all() and result.image.abs().max() <= 1
    assert (result.evaluations, result.backwards) == COSTS[name] and result.skipped == 0
    assert seen == result.record and len(seen) == result.evaluations
    assert sum(record.guided for record in seen) == result.backwards


@pytest.mark.parametrize("name", SAMPLED)
def test_runs_repeat_and_depend_on_the_seed(case, name):
    images = [run(name, *case, seed=seed).image for seed in (3, 3, 4)]
    assert torch.equal(images[0], images[1]) and not torch.allclose(images[0], images[2])


@pytest.mark.parametrize("name", [*SAMPLED, "greyfill"])
def test_nothing_leaks_from_under_the_hole(case, name):
    y, mask = case
    expected = run(name, y, mask, image=None).image
    for under in (7.0, float("nan")):
        other = torch.where(mask > 0, torch.full_like(y, under), y)
        assert torch.equal(expected, run(name, other, mask, image=None).image)


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_of_a_batch_do_not_meet(case, name):
    """Without fresh noise, which a batch shares out otherwise."""
    y, mask = case
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    changed = torch.cat([y[:1], -y[1:]])
    a, b = (run(name, image, mask, noise=noise, sampler="ddim").image for image in (y, changed))
    assert torch.equal(a[0], b[0]) and not torch.allclose(a[1], b[1])


@pytest.mark.parametrize("name", SAMPLED)
def test_grey_parts_are_mixed_once(case, name):
    y, mask = case
    grey = torch.where(mask > 0, 0.25, 0.0)
    ones = get_method(name).run(lambda x, sigma: torch.ones_like(x) + 0 * x, y, grey, sigmas=SIGMAS, clip=None)
    assert torch.allclose(ones.image, torch.where(grey > 0, 0.25 + 0.75 * y, y), atol=1e-5)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_callback_can_stop_the_run(case, name):
    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(name, *case, callback=stop)


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize(
    "change, message",
    [
        ({"sigmas": torch.tensor([1.0, 2.0, 0.0])}, "sigmas is.*descending"),
        ({"sampler": "euler"}, "sampler is 'euler'.*ddpm, ddim"),
        ({"noise": torch.zeros(1, 3, 12, 10)}, r"noise has shape \(1, 3, 12, 10\).*\(2, 3, 12, 10\)"),
        ({"zoom": 2}, "zoom is no option"),
    ],
)
def test_bad_input_is_named(case, name, change, message):
    with pytest.raises(ValueError, match=message):
        run(name, *case, **change)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("repaint", {"resamplings": 0}, "resamplings is 0.*between 1"),
        ("repaint", {"jump_length": 2.5}, "jump_length is 2.5.*whole number"),
        ("mcg", {"step": -1.0}, "step is -1.0.*between 0"),
        ("dps", {"zeta": float("nan")}, "zeta is nan"),
        ("mcg", {"zeta": 1.0}, "zeta is no option of mcg; its options: step"),
        ("copy", {"image": None}, "image is None"),
        ("copy", {"image": torch.zeros(1, 3, 12, 10)}, "image has shape"),
        ("latent_copy", {"codec": None}, "codec is None"),
        ("latent_copy", {"codec": (lambda t: t, lambda t: t[..., :4])}, "codec gives images of shape"),
    ],
)
def test_bad_options_are_named(case, name, options, message):
    with pytest.raises(ValueError, match=message):
        run(name, *case, **options)


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match=f"method is 'magic'.*{', '.join(METHODS)}"):
        get_method("magic")


def test_fast_and_full_replace_only_the_schedule(case):
    settings = GuidanceSettings(strength=0.7, schedule=GuideSchedule(fraction=0.2))
    for name, schedule in (("gradpaint_fast", GuideSchedule.fast()), ("gradpaint_full", GuideSchedule.full())):
        expected = run("gradpaint", *case, settings=GuidanceSettings(strength=0.7, schedule=schedule))
        assert torch.equal(run(name, *case, settings=settings).image, expected.image)


def test_oracles(case):
    y, mask = case
    truth = torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    y = torch.where(mask > 0, torch.full_like(y, 9.0), truth)
    assert torch.equal(run("copy", y, mask, image=truth).image, truth)
    assert torch.equal(run("latent_copy", y, mask, image=truth).image, truth / 2)  # nothing is pasted back
    assert torch.equal(run("greyfill", y, mask).image, torch.where(mask > 0, torch.zeros_like(y), truth))


def test_the_list_needs_no_torch():
    code = "import sys, gradpaint.sampling.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
