"""`gradpaint evaluate` with latent diffusion checkpoints: tiny ones, with weights from a formula."""

import json

import numpy as np
import pytest
import torch
from latent_networks import FIRST_STAGES, UNETS, state_dict
from PIL import Image

from gradpaint.cli import main as cli
from gradpaint.evaluation.dataset import stream_seed
from gradpaint.evaluation.methodspec import parse_method
from gradpaint.evaluation.runner import Setup, inpaint_batch
from gradpaint.image.files import load_image, load_mask, to_uint8
from gradpaint.latent_diffusion import LatentUNet, inpaint_image, load_latent_diffusion
from gradpaint.latent_diffusion.inpaint import latent_shape
from gradpaint.masks import make_mask

STAGE = FIRST_STAGES["vq_f4_like"][0]
SIZE = 32
FIXED = ("--steps", 2, "--sheet", 0, "--lpips-net", "none", "--size", f"{SIZE}x{SIZE}")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints, and three images with their classes."""
    folder = tmp_path_factory.mktemp("latent")
    torch.save({"state_dict": state_dict(UNETS["celebahq_like"][0], STAGE)}, folder / "faces.ckpt")
    for name, classes in (("classes.ckpt", 12), ("null.ckpt", 1001)):
        torch.save({"state_dict": state_dict(UNETS["cin256_v2_like"][0], STAGE, classes)}, folder / name)
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, folder / "other.ckpt")
    text = state_dict(UNETS["celebahq_like"][0], STAGE)
    text["cond_stage_model.transformer.weight"] = torch.zeros(2, 2)
    torch.save({"state_dict": text}, folder / "text.ckpt")
    (folder / "page.ckpt").write_text("<html>not found</html>")
    generator = np.random.Generator(np.random.PCG64(0))
    (folder / "data").mkdir()
    for index in range(2):
        coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(folder / "data" / f"p{index}.png")
    (folder / "labels.csv").write_text("file,label\np0.png,4\np1.png,9\n")
    return folder


@pytest.fixture
def command(capsys, monkeypatch, files):
    """run(*arguments) -> (exit code, stdout, stderr), in the folder of the checkpoints."""
    monkeypatch.chdir(files)

    def run(*arguments):
        code = cli.main(["evaluate", *map(str, (*arguments, *FIXED))])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def fails(command):
    def run(*arguments):
        code, out, err = command(*arguments)
        lines = [line for line in err.splitlines() if "image" not in line or "gradpaint: " in line]
        assert code == 2 and out == "" and len(lines) == 1, err
        return lines[0]

    return run


@pytest.fixture
def evaluations(monkeypatch):
    """Counts the network's evaluations: .count; Ctrl-C at that of number .stop_at."""

    class Evaluations:
        count, stop_at = 0, None

    forward = LatentUNet.forward

    def counted(self, *arguments, **options):
        Evaluations.count += 1
        if Evaluations.count == Evaluations.stop_at:
            raise KeyboardInterrupt
        return forward(self, *arguments, **options)

    monkeypatch.setattr(LatentUNet, "forward", counted)
    return Evaluations


def table3(files, out):
    data = [f"{name}={files / 'data'}" for name in ("imagenet", "ffhq")]
    models = ["--model", f"imagenet={files / 'classes.ckpt'}", "--model", f"ffhq={files / 'faces.ckpt'}"]
    models += ["--labels", f"imagenet={files / 'labels.csv'}"]
    return ["--paper", "table3", "--data", data[0], "--data", data[1], *models, "--batch", 1, "--out", out, *FIXED]


@pytest.fixture(scope="module")
def at_once(files, tmp_path_factory):
    """The folder of table 3 on two data sets of 2 images, in 2 steps, never interrupted."""
    folder = tmp_path_factory.mktemp("table3")
    assert cli.main(["evaluate", *map(str, table3(files, folder))]) == 0
    return folder


def pictures(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("images/**/*.png"))}


METHODS = ("COPY", "latent_COPY", "GREYFILL", "Combine-noisy", "Combine-image", "GradPaint")


def test_table3_interrupted_and_resumed(command, files, at_once, tmp_path, evaluations):
    """Two data sets of 2 images, 3 methods that run the model, 2 steps: 24 evaluations."""
    evaluations.stop_at = 16
    code, _, err = command(*table3(files, tmp_path / "parts"))
    assert code == cli.INTERRUPTED and "The same command goes on from there" in err
    before = pictures(tmp_path / "parts")
    assert 0 < len(before) < 24
    evaluations.count, evaluations.stop_at = 0, None
    code, out, _ = command(*table3(files, tmp_path / "parts"))
    assert code == 0 and evaluations.count == 24 - 2 * (15 // 2)  # whole runs are not repeated
    after = pictures(tmp_path / "parts")
    assert after == pictures(at_once) and {name: after[name] for name in before} == before
    folders = {f"{name}_thick/images/{method}" for name in ("imagenet", "ffhq") for method in METHODS}
    assert {name.rsplit("/seed0", 1)[0] for name in after} == folders and len(after) == 2 * 2 * 6
    assert "COCO not run: Stable Diffusion through ComfyUI" in out and "Stand-in" not in out
    assert "latent COPY not run" not in out and "GradPaint not run" not in out
    full = out[out.index("## imagenet_thick, in full") : out.index("## ffhq_thick, in full")]
    assert "| latent COPY | 2 |" in full and "| GradPaint | 2 |" in full


def test_known_pixels_are_exact_and_latent_copy_is_encoded_and_decoded(files, at_once):
    for name, model in (("imagenet", "classes.ckpt"), ("ffhq", "faces.ckpt")):
        folder = at_once / f"{name}_thick"
        denoiser = load_latent_diffusion(files / model)
        for image in ("p0", "p1"):
            original = load_image(folder / "inputs" / f"{image}.png")
            hole = (load_mask(folder / "masks" / f"{image}.png", size=(SIZE, SIZE)) > 0).expand_as(original)
            made = {method: load_image(folder / "images" / method / "seed0" / f"{image}.png") for method in METHODS}
            for method in set(METHODS) - {"latent_COPY"}:
                assert torch.equal(made[method][~hole], original[~hole])
            assert torch.equal(made["COPY"], original)
            assert (made["GradPaint"][hole] != original[hole]).float().mean() > 0.8
            decoded = to_uint8(denoiser.decode(denoiser.encode(original)))
            difference = made["latent_COPY"] - torch.from_numpy(decoded).permute(2, 0, 1) / 127.5 + 1
            assert difference.abs().max() < 1.5 / 127.5 and (difference != 0).float().mean() < 0.01


def test_records_tell_a_latent_run_apart(at_once):
    rows = [json.loads(line) for line in (at_once / "ffhq_thick" / "runs.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and all(json.loads(row["recipe"])[-1] == "latent" for row in rows)
    guided = next(row for row in rows if row["method"] == "GradPaint")
    assert (guided["forwards"], guided["backwards"]) == (0, 2)  # at every step, as in the paper
    spec = parse_method("combine_image")
    assert spec.recipe != spec.on_latents().recipe and spec.recipe == '["combine_image", null, {}, {}]'
    config = json.loads((at_once / "ffhq_thick" / "config.json").read_text())
    assert config["model"].startswith("faces.ckpt ") and config["codec"] is None


def test_a_batch_is_what_inpaint_image_makes_of_each_image(files):
    side = 40  # not a multiple of the models' 32: images are mirrored up
    denoiser = load_latent_diffusion(files / "classes.ckpt")
    images = torch.cat([load_image(files / "data" / f"p{index}.png") for index in range(2)])
    images = torch.nn.functional.interpolate(images, side)
    masks = torch.cat([make_mask("box", side, side), make_mask("ellipse", side, side)])
    spec, setup = parse_method("gradpaint:stop=1,strength=5").on_latents(), Setup(steps=3, sampler="ddim")
    both, seconds = inpaint_batch(["a", "b"], images, masks, spec, 5, denoiser, setup, [4, 9])
    assert seconds > 0 and latent_shape(denoiser, side, side) == (3, 16, 16)
    for index, (name, label) in enumerate((("a", 4), ("b", 9))):
        noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(stream_seed(5, name)))
        labeled = load_latent_diffusion(files / "classes.ckpt", label=label)
        arguments = dict(steps=3, settings=spec.settings(setup.settings), noise=noise[None], progress=False)
        one = inpaint_image(labeled, images[[index]], masks[[index]], **arguments)
        torch.testing.assert_close(both.image[[index]], one.image, atol=2e-3, rtol=0)
    wrong, _ = inpaint_batch(["a", "b"], images, masks, spec, 5, denoiser, setup, [9, 4])
    plain, _ = inpaint_batch(
        ["a", "b"], images, masks, parse_method("combine_image").on_latents(), 5, denoiser, setup, [4, 9]
    )
    assert all((other.image - both.image).abs().max() > 0.01 for other in (wrong, plain))
    assert (plain.backwards, both.backwards) == (0, 3)
    with pytest.raises(ValueError, match="take its on_latents"):
        inpaint_batch(["a", "b"], images, masks, parse_method("gradpaint"), 5, denoiser, setup, [4, 9])


def test_one_folder_and_a_codec_of_the_users_own(command, files, tmp_path, monkeypatch):
    (tmp_path / "mine_for_latents.py").write_text("def codec():\n    return (lambda x: -x), (lambda z: z)\n")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["--data", "data", "--model", "faces.ckpt", "--methods", "latent_copy", "repaint:resamplings=2", "mcg"]
    code, out, _ = command(*arguments, "--codec", "mine_for_latents:codec", "--out", tmp_path / "r")
    assert code == 0 and "| mcg | 2 |" in out and "repainted as latents without the alignment loss" in out
    made = load_image(tmp_path / "r" / "images" / "latent_copy" / "seed0" / "p0.png")
    assert (made + load_image(files / "data" / "p0.png")).abs().max() < 1.5 / 127.5


def test_classes_by_folders_leave_out_the_one_that_stands_for_none(command, fails, files, tmp_path):
    for name in ("n01", "n02"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        (tmp_path / "classes" / name / "a.png").write_bytes((files / "data" / "p0.png").read_bytes())
    arguments = ["--data", tmp_path / "classes", "--labels", "folders", "--out", tmp_path / "r"]
    assert "2 folders for 1000 classes" in fails(*arguments, "--model", "null.ckpt")
    assert "2 folders for 12 classes" in fails(*arguments, "--model", "classes.ckpt")


@pytest.mark.parametrize("figure", ["fig2", "fig10"])
def test_figures_that_take_a_latent_model(command, tmp_path, figure):
    code, out, _ = command("--paper", figure, "--data", "data", "--model", "faces.ckpt", "--out", tmp_path / "r")
    assert code == 0 and (tmp_path / "r" / f"{figure}_p0.png").is_file()


def test_table7_runs_the_latent_row_alone(command, tmp_path):
    code, out, _ = command("--paper", "table7", "--data", "data", "--model", "faces.ckpt", "--n", 1, "--out", tmp_path)
    assert code == 0 and "GradPaint not run: its row is for a model of pixels" in out
    assert [path.name for path in (tmp_path / "images_thick" / "images").iterdir()] == ["GradPaint-Latent"]


@pytest.mark.parametrize("table", ["table1", "table2", "table4", "table8", "table9", "fig9", "fig3a", "fig3b"])
def test_pages_of_pixel_models_refuse_a_latent_one(fails, tmp_path, table):
    name = {"table1": "ffhq", "table4": "places2", "table9": "ffhq", "table2": "imagenet", "fig9": "imagenet"}
    arguments = ["--paper", table, "--out", tmp_path / "r"]
    column = name.get(table, "images")
    line = fails(*arguments, "--data", f"{column}=data", "--model", f"{column}=faces.ckpt")
    assert f"--paper {table} is about models of pixels" in line and "--paper table3" in line
    for file, message in (("other.ckpt", "not a latent diffusion checkpoint"), ("none.ckpt", "does not exist")):
        assert message in fails(*arguments, "--data", f"{column}=data", "--model", f"{column}={file}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "other.ckpt"], "other.ckpt: not a latent diffusion checkpoint"),
        (["--model", "page.ckpt"], "page.ckpt: "),
        (["--model", "text.ckpt"], "conditioned on something else than a class"),
        (["--model", "none.ckpt"], "no such checkpoint: none.ckpt"),
        (["--model", "faces.ckpt", "--label", "3"], "label is 3, but this model is unconditional"),
        (["--model", "faces.ckpt", "--labels", "labels.csv"], "--labels, but --model faces.ckpt is unconditional"),
        (["--model", "classes.ckpt"], "label must be 0..11, none was given"),
        (["--model", "faces.ckpt", "--noise-schedule", "cosine"], "--noise-schedule is for guided-diffusion models"),
        (["--model", "faces.ckpt", "--methods", "gradpaint:lambda_al=2"], "run without the alignment loss"),
    ],
)
def test_files_and_settings_that_do_not_fit(fails, tmp_path, arguments, message):
    arguments = arguments if "--methods" in arguments else [*arguments, "--methods", "combine_image"]
    assert message in fails("--data", "data", "--out", tmp_path / "r", *arguments)


def test_table3_refuses_what_is_no_latent_model(fails, files, tmp_path):
    bundled = ["--paper", "table3", "--data", "ffhq=data", "--out", tmp_path / "r"]
    (tmp_path / "pixels.pt").write_bytes(b"weights")
    assert "--paper table3 is about latent models" in fails(*bundled, "--model", f"ffhq={tmp_path / 'pixels.pt'}")
    assert "Stable Diffusion through ComfyUI" in fails(
        "--paper", "table3", "--data", "coco=data", "--model", "coco=text.ckpt", "--out", tmp_path / "r"
    )
    assert "not a latent diffusion checkpoint" in fails(*bundled, "--model", "ffhq=other.ckpt")
    without = table3(files, tmp_path / "r")
    where = without.index("--labels")
    del without[where : where + 2]
    assert "classes.ckpt is class-conditional: give each image's class with --labels" in fails(*without)
    null = [text.replace("classes.ckpt", "null.ckpt") if isinstance(text, str) else text for text in without]
    assert "null.ckpt is class-conditional: give each image's class with --labels" in fails(*null)
