"""The command: what it writes, and one clear line and exit code 2 for bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gradpaint
from gradpaint.cli import main as cli
from gradpaint.guided_diffusion import UNet, UNetConfig
from gradpaint.guided_diffusion.config import NOISE_SCHEDULES
from gradpaint.image.files import load_image, save_image, save_mask
from gradpaint.masks import MASK_KINDS, make_mask, mask_options
from gradpaint.sampling import inpaint_image as inpaint_file
from gradpaint.sampling.methods import METHODS
from gradpaint.sampling.run import SAMPLERS


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A random network of two levels as a checkpoint file."""
    torch.manual_seed(0)
    config = UNetConfig(model_channels=32, out_channels=3, num_res_blocks=1, channel_mult=(1, 2), attention_ds=())
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    settings = {"num_head_channels": 64, "noise_schedule": "linear", "image_size": 16}
    save_file(UNet(config).state_dict(), path, metadata={"gradpaint.config": json.dumps(settings)})
    return path


@pytest.fixture
def case(tmp_path, monkeypatch):
    """An image and a mask of 19 x 13 pixels in the current folder."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.Generator(np.random.PCG64(0))
    Image.fromarray(generator.integers(0, 256, (13, 19, 3), dtype=np.uint8)).save("photo.jpg.png")
    save_mask(make_mask("box", 13, 19), "mask.png")
    return tmp_path


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def fails(capsys, *arguments):
    """Return the single line on stderr of a command that must exit with 2."""
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == ""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("gradpaint: ")
    return lines[0]


def test_choices_agree_with_the_library():
    """The parser repeats some, because importing torch for --help takes seconds."""
    assert set(cli.METHODS) == set(METHODS) - {"latent_copy"} and set(cli.SAMPLERS) == set(SAMPLERS)
    assert cli.MASK_KINDS == MASK_KINDS
    for schedule in NOISE_SCHEDULES:
        arguments = cli.build_parser().parse_args(["inpaint", "a.png", "m.png", "--noise-schedule", schedule])
        assert arguments.noise_schedule == schedule
    assert set(cli.MASK_OPTIONS) == {name for kind in MASK_KINDS for name in mask_options(kind)}


def test_version_is_that_of_the_package_and_the_project():
    root = Path(gradpaint.__file__).parents[1]
    assert f'version = "{gradpaint.__version__}"' in (root / "pyproject.toml").read_text()


def test_help_and_version_do_without_torch():
    code = "import sys; sys.modules['torch'] = None; from gradpaint.cli.main import main; main(sys.argv[1:])"
    root = Path(gradpaint.__file__).parents[1]
    for arguments, expected in [(["--version"], f"gradpaint {gradpaint.__version__}"), (["inpaint", "--help"], "MASK")]:
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0 and expected in done.stdout


def test_python_m_gradpaint(tmp_path):
    root = Path(gradpaint.__file__).parents[1]
    command = [sys.executable, "-m", "gradpaint", "mask", "half", "--size", "8x10", "--out", str(tmp_path / "m.png")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "m.png")).mean() == 127.5


def test_mask(capsys, tmp_path):
    out = tmp_path / "new" / "m.png"
    code, text, _ = run(capsys, "mask", "coverage", "--size", "32x48", "--seed", 3, "--coverage", 0.25, "--out", out)
    assert code == 0 and "25.0%" in text
    expected = make_mask("coverage", 32, 48, 3, coverage=0.25)[0, 0].numpy() * 255
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    assert "'coverage' is unknown for a thick mask" in fails(capsys, "mask", "thick", "--coverage", 0.2, "--out", out)
    assert "coverage is 3.0" in fails(capsys, "mask", "box", "--coverage", 3, "--out", out)


@pytest.mark.parametrize(
    "arguments", [["mask", "round"], ["mask", "half", "--size", "big"], ["mask", "half", "--seed", "-1"], [], ["paint"]]
)
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("method", ["gradpaint", "combine_image", "mcg"])
def test_inpaint_keeps_known_pixels_at_any_size(capsys, case, tiny_model, sampler, method):
    arguments = ["--model", tiny_model, "--steps", 4, "--method", method, "--sampler", sampler, "--out", "out/r.png"]
    code, text, _ = run(capsys, "inpaint", "photo.jpg.png", "mask.png", *arguments)
    assert code == 0 and "out/r.png" in text.replace("\\", "/")
    differentiated = {"gradpaint": 2, "combine_image": 0, "mcg": 4}[method]
    assert f"4 model evaluations, {differentiated} backward passes" in text
    before, after = load_image("photo.jpg.png"), load_image("out/r.png")
    hole = make_mask("box", 13, 19).bool().expand_as(before)
    assert torch.equal(before[~hole], after[~hole])
    assert (before[hole] != after[hole]).float().mean() > 0.9


def test_inpaint_takes_every_method_and_its_options(capsys, case, tiny_model):
    fixed = ["inpaint", "photo.jpg.png", "mask.png", "--model", tiny_model, "--steps", 3, "--out", "r.png"]
    costs = {
        "repaint --resamplings 3 --jump-length 1": "7 model evaluations, 0",
        "dps --zeta 0": "3 model evaluations, 3",
        "mcg --step 2": "3 model evaluations, 3",
        "combine_noisy": "3 model evaluations, 0",
        "gradpaint_fast": "3 model evaluations, 1",
        "gradpaint_full": "3 model evaluations, 3",
        "copy": "0 model evaluations, 0",
        "greyfill": "0 model evaluations, 0",
    }
    others = [name for name in cli.METHODS if name not in {text.split()[0] for text in costs}]
    for method, cost in {**dict.fromkeys(others, r"3 model evaluations, \d+"), **costs}.items():
        code, text, _ = run(capsys, *fixed, "--method", *method.split())
        assert code == 0 and re.search(rf"\b{cost} backward passes", text), method
    assert torch.equal(
        load_image("r.png")[make_mask("box", 13, 19).bool().expand(1, 3, 13, 19)].unique().diff(), torch.tensor([])
    )  # the last one: gray


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--method", "mcg", "--zeta", 1], "--zeta is not an option of --method mcg"),
        (["--step", 4], "--step is not an option of --method gradpaint"),
        (["--method", "repaint", "--resamplings", 0], "resamplings is 0"),
        (["--method", "dps", "--pictures", "p"], "--pictures can't show --method dps"),
    ],
)
def test_inpaint_names_options_of_other_methods(capsys, case, tiny_model, arguments, message):
    code, _, text = run(capsys, "inpaint", "photo.jpg.png", "mask.png", "--model", tiny_model, *arguments)
    assert code == 2 and message in text


def test_inpaint_default_name_seed_and_invert(capsys, case, tiny_model):
    def result(*arguments):
        fixed = ["inpaint", "photo.jpg.png", "mask.png", "--model", tiny_model, "--steps", 2]
        assert run(capsys, *fixed, *arguments)[0] == 0
        return load_image("photo.jpg_gradpaint.png")

    first, again, other = result(), result("--seed", 0), result("--seed", 1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    hole = make_mask("box", 13, 19).bool().expand_as(first)
    inverted = result("--invert-mask")
    assert torch.equal(inverted[hole], load_image("photo.jpg.png")[hole])


def test_inpaint_settings_reach_the_sampler(capsys, case, tiny_model, monkeypatch):
    seen = {}

    def spy(denoiser, image, mask, **options):
        seen.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(inpaint_file, "inpaint_image", spy)
    arguments = ["--alpha", 0.3, "--lambda-al", 2, "--stop", 0.7, "--steps", 9, "--seed", 5, "--sampler", "ddim"]
    code, _, err = run(capsys, "inpaint", "photo.jpg.png", "mask.png", "--model", tiny_model, *arguments)
    assert code == cli.INTERRUPTED and "interrupted; nothing was written" in err
    settings = seen["settings"]
    assert (settings.alpha, settings.alignment.lambda_al, settings.schedule.fraction) == (0.3, 2.0, 0.7)
    assert (seen["steps"], seen["seed"], seen["sampler"]) == (9, 5, "ddim")
    assert not Path("photo.jpg_gradpaint.png").exists()


def test_inpaint_warns_far_from_the_trained_size(capsys, case, tiny_model):
    save_image(torch.zeros(3, 64, 64), "large.png")
    save_mask(make_mask("half", 64, 64), "half.png")
    code, _, err = run(capsys, "inpaint", "large.png", "half.png", "--model", tiny_model, "--steps", 1)
    assert code == 0 and "64x64 pixels, but the model was trained at 16x16" in err
    code, _, err = run(capsys, "inpaint", "photo.jpg.png", "mask.png", "--model", tiny_model, "--steps", 1)
    assert code == 0 and "warning" not in err


def test_inpaint_errors(capsys, case, tiny_model):
    good = ["inpaint", "photo.jpg.png", "mask.png", "--model", tiny_model]
    assert "no such image: none.png" in fails(capsys, "inpaint", "none.png", "mask.png", "--model", tiny_model)
    assert "no such image: none.png" in fails(capsys, "inpaint", "photo.jpg.png", "none.png", "--model", tiny_model)
    save_mask(make_mask("half", 8, 8), "small.png")
    line = fails(capsys, "inpaint", "photo.jpg.png", "small.png", "--model", tiny_model)
    assert "8x8" in line and "19x13" in line
    save_mask(torch.zeros(1, 1, 13, 19), "empty.png")
    assert "nothing to repaint" in fails(capsys, "inpaint", "photo.jpg.png", "empty.png", "--model", tiny_model)
    assert "none.safetensors" in fails(capsys, *good[:3], "--model", "none.safetensors")
    Path("broken.safetensors").write_bytes(b"not a model at all")
    assert "broken.safetensors" in fails(capsys, *good[:3], "--model", "broken.safetensors")
    Path("broken.pt").write_bytes(b"not a model at all")
    assert "broken.pt" in fails(capsys, *good[:3], "--model", "broken.pt")
    assert "steps is 0" in fails(capsys, *good, "--steps", 0)
    assert "alpha is -1.0" in fails(capsys, *good, "--alpha", -1)
    assert "fraction is 2.0" in fails(capsys, *good, "--stop", 2)
    assert "label is 3" in fails(capsys, *good, "--label", 3)
    assert "'quantum'" in fails(capsys, *good, "--device", "quantum")
    assert "overwrite the input" in fails(capsys, *good, "--out", "photo.jpg.png")
    assert "r.jpg does not end in .png" in fails(capsys, *good, "--out", "r.jpg")


def test_missing_package_is_named(capsys, monkeypatch):
    def without_torch(arguments):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli, "mask", without_torch)
    assert "package torch is missing: pip install torch" in fails(capsys, "mask", "half")


@pytest.mark.parametrize("shape, multiple", [((13, 19), 8), ((2, 3), 8), ((16, 8), 8), ((1, 1), 4)])
def test_reflect_pad(shape, multiple):
    tensor = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(1, 1, *shape)
    padded = inpaint_file.reflect_pad(tensor, multiple)
    height, width = padded.shape[2:]
    assert height % multiple == 0 and width % multiple == 0 and height - shape[0] < multiple
    assert torch.equal(padded[..., : shape[0], : shape[1]], tensor)
    if height > shape[0]:
        assert torch.equal(padded[..., shape[0], :], padded[..., shape[0] - 1, :])  # mirrored at the edge


def test_size_warning():
    assert inpaint_file.size_warning(256, 256, 256) is None
    assert inpaint_file.size_warning(300, 256, 256) is None
    assert "512x512" in inpaint_file.size_warning(512, 512, 256)
    assert "trained at 256x256" in inpaint_file.size_warning(64, 64, 256)


def test_bad_out_fails_before_anything_is_computed(capsys, case, tiny_model, monkeypatch):
    monkeypatch.setattr(inpaint_file, "inpaint_image", lambda *args, **kwargs: pytest.fail("sampled first"))
    (case / "folder.png").mkdir()
    assert "is a folder" in fails(
        capsys, "inpaint", "photo.jpg.png", "mask.png", "--model", tiny_model, "--out", "folder.png"
    )
    assert "is not a folder" in fails(
        capsys, "inpaint", "photo.jpg.png", "mask.png", "--model", tiny_model, "--out", "mask.png/out.png"
    )
    assert "is not a folder" in fails(capsys, "demo", "--out", "mask.png")


def test_settings_that_the_file_does_not_show_reach_the_loader(capsys, case, tiny_model, monkeypatch):
    import gradpaint.guided_diffusion as library

    class Reached(Exception):
        pass

    def load(path, **options):
        raise Reached(options)

    monkeypatch.setattr(library, "load_denoiser", load)
    with pytest.raises(Reached) as reached:
        run(
            capsys,
            "inpaint",
            "photo.jpg.png",
            "mask.png",
            "--model",
            tiny_model,
            "--head-channels",
            "32",
            "--noise-schedule",
            "cosine",
            "--attention-order",
            "new",
        )
    options = reached.value.args[0]
    assert (options["num_head_channels"], options["noise_schedule"], options["use_new_attention_order"]) == (
        32,
        "cosine",
        True,
    )
