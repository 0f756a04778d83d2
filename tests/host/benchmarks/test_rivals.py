"""benchmarks/rivals.py on a tiny model: its tables, and that it goes on from what it kept."""

import sys

import pytest
import torch
import zoo
from in_host import PACK_ROOT


@pytest.fixture
def rivals(pack, tmp_path, monkeypatch):
    """The script with a tiny model and random pictures in place of the internal assets."""
    sys.path.insert(0, str(PACK_ROOT / "benchmarks"))
    try:
        import anime64_host
        import rivals as script
    finally:
        sys.path.remove(str(PACK_ROOT / "benchmarks"))
    library = script.load_library(pack)
    model = zoo.guided_diffusion(pack, tmp_path)
    monkeypatch.setattr(anime64_host, "load_model", lambda assets, bfloat16: model)
    monkeypatch.setattr(anime64_host, "image_files", lambda assets, n: list(range(n)))
    monkeypatch.setattr(
        library.imageio,
        "load_image",
        lambda i: torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(i)) * 2 - 1,
    )
    monkeypatch.setattr(library.scoring, "lpips", lambda a, b, net: (a - b).square().mean((1, 2, 3)))
    arguments = ["--n", "4", "--batch", "2", "--steps", "4", "--mask", "box", "--state", str(tmp_path / "state")]
    script.run = lambda *more: script.report(script.arguments([*arguments, *more]), library)
    return script


def costs(text):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    return {row[0]: (int(row[4]), int(row[5])) for row in rows if len(row) == 8 and row[4].isdigit()}


def test_tables_and_going_on(rivals, monkeypatch):
    text = rivals.run("--methods", "plain", "repaint:resamplings=2", "mcg", "gradpaint")
    assert costs(text) == {"plain": (4, 0), "repaint:resamplings=2": (4 + 3, 0), "mcg": (0, 4), "gradpaint": (2, 2)}
    assert "minus gradpaint" in text and "nan" not in text
    made = []
    run_batch = rivals.run_batch
    monkeypatch.setattr(rivals, "run_batch", lambda method, *rest: made.append(method.text) or run_batch(method, *rest))
    again = rivals.run("--methods", "plain", "repaint:resamplings=2", "mcg", "gradpaint")
    assert again == text and made == []
    rivals.run("--methods", "plain", "dps", "--baseline", "plain")  # a method more
    assert made == ["dps"] * 2
    for change in (["--seed", "1"], ["--sampler", "euler"], ["--mask", "half"], ["--float32"], ["--steps", "3"]):
        made.clear()
        rivals.run("--methods", "plain", *change)
        assert made == ["plain"] * 2, change


def test_cut_off(rivals, monkeypatch):
    run_batch, made = rivals.run_batch, []

    def second_fails(method, model, problem, part, seed):
        made.append(part.start)
        if len(made) == 2:
            raise KeyboardInterrupt
        return run_batch(method, model, problem, part, seed)

    monkeypatch.setattr(rivals, "run_batch", second_fails)
    with pytest.raises(KeyboardInterrupt):
        rivals.run("--methods", "plain")
    rivals.run("--methods", "plain")
    assert made == [0, 2, 2]
