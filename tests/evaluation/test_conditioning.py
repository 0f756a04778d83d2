"""Classes and captions of images, from CSVs and folders, and that each image is denoised with its own class."""

import pytest
import torch
from PIL import Image

from gradpaint.evaluation.conditioning import Labeled
from gradpaint.evaluation.dataset import Cases
from gradpaint.evaluation.methodspec import parse_method
from gradpaint.evaluation.runner import Setup, inpaint_batch
from gradpaint.guided_diffusion import GuidedDiffusionDenoiser, ModelConfig, UNetConfig
from gradpaint.guided_diffusion.unet import UNet

FILES = ("7/a.png", "7/b.png", "12/c.jpg")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for file in FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (200, 30, 90)).save(folder / file)
    return folder


def write(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_labels_from_folders_that_are_numbers(data):
    cases = Cases(data, (16, 16), labels="folders")
    assert cases.names == ["12__c", "7__a", "7__b"] and cases.labels(cases.names) == [12, 7, 7]
    assert cases.labels(["7__b"]) == [7] and Cases(data, (16, 16)).labels(["7__a"]) is None


def test_labels_from_named_folders_need_every_class(data):
    for old, new in (("7", "n02"), ("12", "n01")):
        (data / old).rename(data / new)
    cases = Cases(data, (16, 16), labels="folders", num_classes=2)
    assert cases.labels(["n01__c", "n02__a"]) == [0, 1]
    with pytest.raises(ValueError, match="has 2 folders for 1000 classes"):
        Cases(data, (16, 16), labels="folders", num_classes=1000)
    (data / "n02" / "a.png").rename(data / "a.png")
    with pytest.raises(ValueError, match="a.png lies in no folder of its class"):
        Cases(data, (16, 16), labels="folders", num_classes=2)


def test_labels_and_captions_from_csvs(data, tmp_path):
    labels = write(tmp_path / "l.csv", "file,label", ["7/a.png,3", "7\\b,4", "12/c.jpg,5", "other.png,6"])
    captions = write(tmp_path / "c.csv", "caption,file", ['"a dog, wet",7/a.png', "a cat,7/b.png", "a hat,12/c.jpg"])
    cases = Cases(data, (16, 16), labels=labels, captions=captions)
    assert cases.labels(["7__a", "7__b", "12__c"]) == [3, 4, 5]
    assert cases.captions == {"7__a": "a dog, wet", "7__b": "a cat", "12__c": "a hat"}
    lines = cases.conditions().splitlines()
    assert lines[0] == "file,label,caption" and '7__a.png,3,"a dog, wet"' in lines
    assert Cases(data, (16, 16)).conditions() == ""


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,label\n7/a.png,3\n", "has no label for 2 of 3 images: 12__c"),
        ("file,class\n7/a.png,3\n", "has the columns file, class; it must have file and label"),
        ("file,label\n7/a.png,3\n7/b.png,x\n12/c.jpg,1\n", "the label of 7__b is 'x'"),
    ],
)
def test_wrong_labels(data, tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        Cases(data, (16, 16), labels=tmp_path / "l.csv")


def test_missing_files_and_scenes(data, tmp_path):
    with pytest.raises(ValueError, match="--labels .*none.csv does not exist"):
        Cases(data, (16, 16), labels=tmp_path / "none.csv")
    with pytest.raises(ValueError, match="need --data"):
        Cases("scenes", (16, 16), labels=tmp_path / "l.csv")


def test_each_image_is_denoised_with_its_own_class(data):
    torch.manual_seed(0)
    network = UNetConfig(32, 6, 1, (1, 2), (2,), num_classes=20, num_head_channels=32)
    denoiser = class_conditional(network)
    cases = Cases(data, (16, 16), labels="folders")
    names, spec, setup = cases.names, parse_method("gradpaint"), Setup(steps=3)
    images, masks = cases.images(names), cases.masks(names)
    together, _ = inpaint_batch(names, images, masks, spec, 0, denoiser, setup, cases.labels(names))
    other, _ = inpaint_batch(names, images, masks, spec, 0, denoiser, setup, [12, 7, 8])
    assert torch.equal(together.image[:2], other.image[:2]) and not torch.equal(together.image[2], other.image[2])
    with pytest.raises(ValueError, match="class-conditional"):
        inpaint_batch(names, images, masks, spec, 0, denoiser, setup)


def class_conditional(network):
    unet = UNet(network)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return GuidedDiffusionDenoiser(unet, ModelConfig(unet=network, image_size=16))


def test_a_labeled_denoiser_passes_everything_else_on():
    class Inner:
        sigmas, size_multiple = "levels", 8

        def __call__(self, x, sigma, label):
            return x, label

        def evaluate(self, x, sigma, label):
            return label

    labeled = Labeled(Inner(), [4])
    assert labeled(1, 2) == (1, 4) and labeled.evaluate(1, 2) == 4
    assert labeled.sigmas == "levels" and labeled.size_multiple == 8
    assert Labeled(Inner(), [4, 5])(1, 2)[1].tolist() == [4, 5]
