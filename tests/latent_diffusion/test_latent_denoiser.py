"""The denoiser of latents: formula, classes, codec; inpainting with it in Python and on the command line."""

import pytest
import torch
from latent_networks import FIRST_STAGES, UNETS, formula_input, state_dict
from PIL import Image

from gradpaint.cli import main as cli
from gradpaint.image.files import load_image, save_image, save_mask
from gradpaint.latent_diffusion import inpaint_image, load_latent_diffusion
from gradpaint.latent_diffusion.inpaint import latent_mask
from gradpaint.masks import make_mask
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from gradpaint.sampling.classifier_free import ClassifierFree

STAGE = FIRST_STAGES["vq_f4_like"][0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ldm")
    contents = {
        "faces.ckpt": state_dict(UNETS["celebahq_like"][0], STAGE),
        "classes.ckpt": state_dict(UNETS["cin256_v2_like"][0], STAGE, 5),
        "null.ckpt": state_dict(UNETS["cin256_v2_like"][0], STAGE, 1001),
    }
    for name, weights in contents.items():
        torch.save({"state_dict": weights}, folder / name)
    return folder


def load(files, name, **arguments):
    heads = {} if name == "faces.ckpt" else {"num_heads": 1}
    return load_latent_diffusion(files / name, **arguments, **heads)


def latent(batch=2):
    return formula_input("latent", batch, 3, 16, 16)


# ---- the denoiser


def test_denoises_by_the_formula_at_trained_levels(files):
    denoiser = load(files, "faces.ckpt")
    x = latent()
    for t in (0, 417, 999):
        sigma = denoiser.sigmas[t].float()
        eps = denoiser.unet(x / (1 + sigma**2) ** 0.5, torch.full((2,), t))
        torch.testing.assert_close(denoiser(x, sigma), x - sigma * eps, atol=1e-5 * (1 + sigma.item()), rtol=1e-5)
    assert denoiser.timestep(torch.tensor([1e-9, 1e9])).tolist() == [0, 999]
    both = denoiser(x, torch.tensor([0.3, 40.0]))
    torch.testing.assert_close(both[1:], denoiser(x[1:], 40.0), atol=1e-3 * 40, rtol=1e-5)


def test_sizes(files):
    denoiser = load(files, "faces.ckpt")
    sizes = (denoiser.image_size, denoiser.size_multiple, denoiser.latent_multiple, denoiser.downscale)
    assert sizes == (256, 32, 8, 4)
    with pytest.raises(ValueError, match=r"multiples of 8, images of 32 \(trained at 256\), got 16 x 12"):
        denoiser(torch.zeros(1, 3, 16, 12), 1.0)
    with pytest.raises(ValueError, match=r"a latent \(B, 3, h, w\), got \(1, 4, 16, 16\)"):
        denoiser(torch.zeros(1, 4, 16, 16), 1.0)
    with pytest.raises(ValueError, match="3 values for a batch of 2"):
        denoiser(latent(), torch.ones(3))
    with pytest.raises(ValueError, match=r"multiples of 4, got \(1, 3, 10, 8\)"):
        denoiser.encode(torch.zeros(1, 3, 10, 8))


def test_differentiable_with_frozen_weights(files):
    denoiser = load(files, "faces.ckpt")
    x = latent().requires_grad_()
    image = denoiser.decode(denoiser(x, torch.tensor(2.0)))
    (gradient,) = torch.autograd.grad(image.square().mean(), x)
    assert image.shape == (2, 3, 64, 64) and gradient.isfinite().all() and gradient.abs().max() > 0
    assert not any(p.requires_grad for p in denoiser.parameters())


def test_labels(files):
    denoiser, x = load(files, "classes.ckpt"), latent()
    by_call = denoiser(x, 1.0, label=torch.tensor([1, 4]))
    torch.testing.assert_close(by_call[:1], denoiser(x[:1], 1.0, label=1))
    torch.testing.assert_close(by_call[1:], load(files, "classes.ckpt", label=4)(x[1:], 1.0))
    assert (by_call[:1] - denoiser(x[:1], 1.0, label=4)).abs().max() > 1e-3
    for label, message in ((None, "none was given"), (5, "0..4, got 5"), (-1, "0..4"), (torch.tensor([1, 7]), "7")):
        with pytest.raises(ValueError, match=message):
            denoiser(x, 1.0, label=label)
    with pytest.raises(ValueError, match="3 values for a batch of 2"):
        denoiser(x, 1.0, label=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="unconditional"):
        load(files, "faces.ckpt", label=3)


def test_no_label_is_the_null_class_where_there_is_one(files):
    denoiser, x = load(files, "null.ckpt"), latent()
    assert torch.equal(denoiser(x, 1.0), denoiser(x, 1.0, label=1000))
    assert not torch.equal(denoiser(x, 1.0), denoiser(x, 1.0, label=999))
    guided = ClassifierFree(load(files, "null.ckpt", label=7), denoiser, 2.0)
    expected = 2 * denoiser(x, 1.0, label=7) - denoiser(x, 1.0)
    torch.testing.assert_close(guided(x, torch.tensor(1.0)), expected)


# ---- inpainting


@pytest.fixture
def photo():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, 52, 60, generator=generator) * 2 - 1, make_mask("box", 52, 60)


def losses(result, name):
    """A term's value at each guided step, 0 where it is off."""
    return [float(step.losses.get(name, torch.zeros(1)).max()) for step in result.record if step.guided]


def test_latent_mask_repaints_a_cell_if_any_pixel_is():
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., 3, 4], mask[..., 7, 11] = 1.0, 0.5
    assert latent_mask(mask, 4)[0, 0].tolist() == [[0, 1, 0], [0, 0, 0.5]]


def test_known_pixels_stay_and_the_hole_is_repainted(files, photo):
    denoiser, (image, mask) = load(files, "faces.ckpt"), photo
    result = inpaint_image(denoiser, image, mask, steps=4, progress=False)
    known = (mask == 0).expand_as(image)
    assert torch.equal(result.image[known], image[known])
    assert (result.image[~known] != image[~known]).float().mean() > 0.9 and result.image.abs().max() <= 1
    assert (result.evaluations, result.backwards) == (4, 2)
    assert all(value > 0 for value in losses(result, "mse")) and not any(losses(result, "alignment"))
    # what is under the hole makes no difference
    other = torch.where(known, image, -image)
    assert torch.equal(
        inpaint_image(denoiser, other, mask, steps=4, progress=False).image[~known], result.image[~known]
    )


def test_guidance_brings_the_known_latents_nearer(files, photo):
    denoiser, (image, mask) = load(files, "faces.ckpt"), photo
    run = lambda method: inpaint_image(
        denoiser, image, mask, steps=8, method=method, settings=GuidanceSettings(schedule=GuideSchedule.full())
    )
    guided = run("gradpaint")
    mse = losses(guided, "mse")
    assert len(mse) == 8 and all(value > 0 for value in mse)
    assert (guided.image - run("combine_image").image).abs().max() > 0.01


def test_alignment_loss_on_the_decoded_image_only_where_asked(files, photo):
    denoiser, (image, mask) = load(files, "faces.ckpt"), photo
    settings = GuidanceSettings(alignment=AlignmentSettings(lambda_al=1.0), schedule=GuideSchedule.full())
    arguments = dict(steps=2, settings=settings, progress=False)
    plain = inpaint_image(denoiser, image, mask, **arguments)
    decoded = inpaint_image(denoiser, image, mask, align_decoded=True, **arguments)
    assert len(losses(decoded, "alignment")) == 2 and all(value > 0 for value in losses(decoded, "alignment"))
    assert not any(losses(plain, "alignment"))
    assert not torch.equal(plain.image, decoded.image)


def test_record_holds_images(files, photo):
    denoiser, (image, mask) = load(files, "faces.ckpt"), photo
    result = inpaint_image(denoiser, image, mask, steps=3, keep_x0=True, keep_gradients=True, progress=False)
    assert [step.x0_hat.shape for step in result.record] == [image.shape] * 3
    maps = [step.maps for step in result.record if step.guided]
    assert maps and all(kept["mse"].shape == (1, 52, 60) for kept in maps)


@pytest.mark.parametrize("method", ["repaint", "mcg", "dps", "combine_noisy", "copy", "greyfill"])
def test_every_method(files, photo, method):
    denoiser, (image, mask) = load(files, "faces.ckpt"), photo
    options = {"resamplings": 2, "jump_length": 1} if method == "repaint" else {}
    out = inpaint_image(denoiser, image, mask, steps=3, method=method, progress=False, **options).image
    known = (mask == 0).expand_as(image)
    assert torch.equal(out[known], image[known]) and out.isfinite().all()
    if method in ("copy", "greyfill"):  # of the image itself, not of what the first stage makes of it
        assert torch.equal(out[~known], image[~known] if method == "copy" else torch.zeros_like(image[~known]))


# ---- the command


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(1)
    save_image(torch.rand(3, 52, 60, generator=generator) * 2 - 1, "photo.png")
    save_mask(make_mask("box", 52, 60), "mask.png")


def run(capsys, files, name, *arguments):
    fixed = ["inpaint", "photo.png", "mask.png", "--model", files / name, "--steps", 2, "--out", "r.png"]
    code = cli.main([str(argument) for argument in (*fixed, *arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_knows_the_file_and_keeps_known_pixels(capsys, case, files):
    code, text, _ = run(capsys, files, "faces.ckpt", "--pictures", "run")
    assert code == 0 and "2 model evaluations, 1 backward passes" in text
    before, after = load_image("photo.png"), load_image("r.png")
    hole = make_mask("box", 52, 60).bool().expand_as(before)
    assert torch.equal(before[~hole], after[~hole]) and (before[hole] != after[hole]).float().mean() > 0.9
    assert Image.open("run/timeline.png").width > 100 and Image.open("run/gradients.png").width > 100


def test_command_takes_labels(capsys, case, files):
    pictures = []
    for label in (1, 3):
        code, _, _ = run(capsys, files, "null.ckpt", "--label", label)
        assert code == 0
        pictures.append(load_image("r.png"))
    assert not torch.equal(*pictures)
    assert run(capsys, files, "null.ckpt")[0] == 0


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("faces.ckpt", ["--label", 3], "label is 3, but this model is unconditional"),
        ("classes.ckpt", [], "label must be 0..4, none was given"),
        ("classes.ckpt", ["--label", 5], "label must be an integer in 0..4, got 5"),
        ("faces.ckpt", ["--noise-schedule", "cosine"], "--noise-schedule is for guided-diffusion models"),
        ("none.ckpt", [], "no such checkpoint"),
    ],
)
def test_command_errors(capsys, case, files, name, arguments, message):
    code, _, err = run(capsys, files, name, *arguments)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1
