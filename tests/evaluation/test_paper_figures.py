"""The paper's figures: what is run for them, what they show, and that a second run takes what the first one made."""

import dataclasses

import pytest
import torch
from PIL import Image

from gradpaint.drawing.paper_figures import estimate_sheet, sample_sheet
from gradpaint.evaluation.methodspec import parse_method
from gradpaint.evaluation.paper import figures
from gradpaint.evaluation.paper.figures import FigureRun
from gradpaint.evaluation.paper.layouts import LAYOUTS


@pytest.fixture
def make_figure(make_block, tmp_path):
    """make(name) -> the figure on one scene, in few steps."""

    def make(name, steps=4, seeds=(0,)):
        layout = LAYOUTS[name]
        block = make_block(count=1, steps=steps, seeds=seeds, folder=tmp_path / name)
        block.specs = [parse_method(row.spec(stand_in=True), row.title) for row in layout.rows]
        return FigureRun(layout, block)

    return make


def sheet_of(figure):
    return figure.block.folder / f"{figure.layout.name}_{figure.block.cases.names[0]}.png"


@pytest.mark.parametrize("name, runs", [("fig2", 3), ("fig3b", 3)])
def test_estimates_are_run_once(make_figure, denoiser, name, runs, monkeypatch):
    figure = make_figure(name)
    page = figure.run(denoiser, progress=False)
    assert denoiser.calls == runs * 4 and sheet_of(figure).name in page.read_text()
    assert len(list(figure.block.folder.glob("estimates/*/seed0/*/step_*.png"))) == runs * 4
    made = sheet_of(figure).read_bytes()
    again = make_figure(name)
    again.run(denoiser, progress=False)
    assert denoiser.calls == runs * 4 and sheet_of(again).read_bytes() == made
    with pytest.raises(ValueError, match="steps was 4 and is now 5"):
        make_figure(name, steps=5)


def test_an_interrupted_figure_goes_on(make_figure, denoiser):
    denoiser.stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        make_figure("fig2").run(denoiser, progress=False)
    denoiser.stop_at, denoiser.calls = None, 0
    make_figure("fig2").run(denoiser, progress=False)
    assert denoiser.calls == 2 * 4  # the first method was done


def test_fig2_shows_the_estimates_and_gradpaints_collage(make_figure, denoiser, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        figures, "estimate_sheet", lambda rows, steps, masked: shown.update(rows) or estimate_sheet(rows, steps, masked)
    )
    figure = make_figure("fig2")
    figure.run(denoiser, progress=False)
    assert list(shown) == ["Combine-noisy", "Combine-image", "GradPaint", "GradPaint, collage"]
    name = figure.block.cases.names[0]
    image, mask = figure.block.cases.images([name])[0], figure.block.cases.masks([name])[0]
    for step, collage in shown["GradPaint, collage"].items():
        assert torch.equal(collage, torch.where(mask > 0, shown["GradPaint"][step], image))
    first = [shown[label][0] for label in ("Combine-noisy", "Combine-image", "GradPaint")]
    assert torch.equal(first[0], first[1]) and torch.equal(first[1], first[2])  # the same noise


def test_fig3b_is_three_different_runs(make_figure, denoiser):
    specs = make_figure("fig3b").block.specs
    assert [spec.label for spec in specs] == ["masked MSE", "alignment", "both"]
    assert len({spec.recipe for spec in specs}) == 3


def test_fig3a_draws_both_terms(make_figure, denoiser, monkeypatch):
    seen = {}

    def draw(maps, mask, titles, sigmas):
        seen.update(maps=maps, mask=mask, titles=titles, sigmas=sigmas)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(figures, "gradient_maps", draw)
    figure = make_figure("fig3a")
    figure.run(denoiser, progress=False)
    assert sorted(seen["maps"]) == [0, 1, 2, 3] == sorted(seen["sigmas"])
    assert seen["titles"] == {"mse": "masked MSE (eq. 5)", "alignment": "alignment loss (eq. 6)"}
    terms = seen["maps"][3]
    values = list(terms.values() if isinstance(terms, dict) else terms)
    assert len(values) == 2 and all(value.shape == (1, 16, 16) for value in values)


def test_fig10_is_seeds_by_methods(make_figure, denoiser, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        figures, "sample_sheet", lambda rows, seeds, masked: shown.update(rows) or sample_sheet(rows, seeds, masked)
    )
    figure = make_figure("fig10", seeds=(0, 1, 5))
    figure.run(denoiser, progress=False)
    assert list(shown) == ["Combine-image", "GradPaint"] and [len(row) for row in shown.values()] == [3, 3]
    calls = denoiser.calls
    figure.run(denoiser, progress=False)
    assert denoiser.calls == calls and not torch.equal(shown["GradPaint"][0], shown["GradPaint"][1])


def test_sheets_refuse_rows_that_do_not_agree():
    picture = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match=r"row 'b' has steps \[0\]"):
        estimate_sheet({"a": {0: picture, 1: picture}, "b": {0: picture}}, 2, picture)
    for sheet in (lambda: estimate_sheet({}, 2, picture), lambda: sample_sheet({}, [0], picture)):
        with pytest.raises(ValueError, match="rows is empty"):
            sheet()
    assert sample_sheet({"a": [picture] * 2}, [3, 4], picture).width > 3 * 8


def test_a_recipe_that_changed_is_run_again(make_figure, denoiser):
    figure = make_figure("fig2")
    figure.run(denoiser, progress=False)
    calls = denoiser.calls
    specs = figure.block.specs
    figure.block.specs = [*specs[:2], dataclasses.replace(specs[2], guidance={"stop": 0.5})]
    figure.run(denoiser, progress=False)
    assert denoiser.calls == calls + 4
