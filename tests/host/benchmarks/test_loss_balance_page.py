"""benchmarks/loss_balance.py on made-up photographs. The numbers themselves: tests/method/test_loss_balance.py."""

import math
import re
import sys

import pytest
import torch
from in_host import PACK_ROOT


@pytest.fixture
def script():
    sys.path.insert(0, str(PACK_ROOT / "benchmarks"))
    try:
        import loss_balance
    finally:
        sys.path.remove(str(PACK_ROOT / "benchmarks"))
    return loss_balance


@pytest.fixture
def folder(tmp_path):
    from gradpaint.image.files import save_image
    from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes

    for i, scene in enumerate(landscapes(HELD_OUT_SEEDS[:2], 256)):
        save_image(scene, tmp_path / f"{i}.png")
    return tmp_path


def test_page(script, folder, monkeypatch):
    for name, value in {"SCENES": range(5000, 5002), "STEPS": 4, "SHOWN": (0, 1)}.items():
        monkeypatch.setattr(script, name, value)
    text = script.report(script.arguments(["--photos", str(folder), "--masks", "1"]))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "| noise 0.2 |" in line
    ]
    assert len(rows) == 2 and rows[0] == rows[1]  # at 256 x 256 both views are the image itself
    numbers = [float(re.match(r"\S+", cell)[0]) for cell in rows[0][1:]]
    mse, alignment, soft_alignment, ratio, soft_ratio, top, soft_top = numbers
    assert 0.06 < mse < 0.12  # 3 channels, variance 0.04, of the known share
    assert soft_alignment < alignment and 1 < soft_ratio < ratio and 1 < soft_top < top < 100
    in_state = text[text.index("| step of 4 |") :].split("\n\n")[0].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in in_state] == ["0", "1"]
    assert all(float(cell.split()[0]) > 1 for row in in_state for cell in row.strip("|").split("|")[1:])
    assert "nan" not in text


def test_balance_of_a_step(script):
    """A step of height h across a straight border, with unit slope along it: everything by hand."""
    rows = torch.arange(8.0, dtype=torch.float64)[:, None].expand(8, 8)
    mask = (torch.arange(8) >= 4).double().expand(8, 8)[None, None]
    y, h, softness = rows.expand(1, 3, 8, 8).contiguous(), 2.0, 0.5
    result = script.balance(y + h, y, mask, softness)
    lengths = [math.sqrt(h * h + slope + softness**2) for slope in (1, 1, 1, 1, 1, 1, 1, 0)]
    cosines = [h / length for length in lengths]
    slopes = [2 * c * (1 - c * h / length) / length for c, length in zip(cosines, lengths)]
    size = 400 / 3 / 64 * math.sqrt(3 * sum(s * s for s in slopes))
    assert result.alignment == pytest.approx(400 / 64 * sum(c * c for c in cosines))
    assert result.mse == pytest.approx(3 * h * h / 2)
    assert result.ratio == pytest.approx(size / (2 / 64 * math.sqrt(3 * 32) * h))
    assert result.top == pytest.approx(max(slopes) ** 2 / sum(s * s for s in slopes))  # one of the eight pixels


def test_blur(script):
    flat = torch.full((1, 3, 32, 32), 0.3)
    assert torch.allclose(script.blurred(flat, 2), flat, atol=1e-6)
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1
    spot, offsets = script.blurred(point, 2)[0, 0], torch.arange(41) - 20
    assert spot.sum() == pytest.approx(1) and torch.allclose(spot, spot.T)
    assert (spot.sum(0) * offsets**2).sum() == pytest.approx(4, rel=0.05)


def test_wrong_folders(script, tmp_path):
    from gradpaint.image.files import save_image

    with pytest.raises(SystemExit, match="must be a folder with PNG"):
        script.photos(tmp_path)
    save_image(torch.zeros(3, 255, 300), tmp_path / "small.png")
    with pytest.raises(SystemExit, match=r"small.png is 300 x 255, but must be at least 256 x 256"):
        script.photos(tmp_path)
