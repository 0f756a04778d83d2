"""The paper's tables: every cell can be filled in, every row be run, and the page says what is missing."""

import csv
import dataclasses

import pytest

from gradpaint.cli import evaluate as cli_evaluate
from gradpaint.evaluation import paper
from gradpaint.evaluation.methodspec import parse_method
from gradpaint.evaluation.metrics import Estimate
from gradpaint.evaluation.paper_run import PaperRun
from gradpaint.masks import make_mask


def test_the_command_knows_every_table():
    assert set(cli_evaluate.PAPER) == set(paper.LAYOUTS)
    assert set(paper.LAYOUTS) == {"table1", "table2", "table3", "table4", "table7", "table8", "table9", "fig9"}


@pytest.mark.parametrize("layout", paper.LAYOUTS.values(), ids=str)
def test_every_row_and_mask_can_be_made(layout):
    for row in layout.rows:
        for text in filter(None, (row.ours, row.stand_in)):
            parse_method(text)
    for mask in layout.masks:
        make_mask(mask.kind, 64, 64, 0, **dict(mask.options))
    assert len({row.title for row in layout.rows}) == len(layout.rows)
    assert set(layout.measures) <= set(paper.MEASURES) and set(layout.datasets) <= set(paper.DATASETS)


def test_what_is_known_of_the_paper():
    repaint = next(row for row in paper.LAYOUTS["table2"].rows if row.title == "RePaint")
    spec = parse_method(repaint.ours)
    assert (spec.steps, spec.options["resamplings"]) == (250, 10)
    assert [dict(mask.options)["coverage"] for mask in paper.LAYOUTS["table8"].masks] == [0.1, 0.25, 0.5, 0.75]
    assert paper.LAYOUTS["table8"].seeds > 1
    titles = {row.title: parse_method(row.stand_in) for row in paper.LAYOUTS["table1"].rows if row.stand_in}
    assert titles["GradPaint"].recipe != titles["GradPaint-Fast"].recipe
    shares = [parse_method(row.stand_in).guidance["stop"] for row in paper.LAYOUTS["fig9"].rows]
    assert tuple(shares) == paper.SHARES


def fill(path, layout, value):
    rows = list(csv.DictReader(paper.numbers_template(layout).splitlines()))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, paper.COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "value": value(index)} for index, row in enumerate(rows))
    return rows


def test_a_filled_form_is_shown_in_every_cell(tmp_path):
    layout = paper.LAYOUTS["fig9"]  # its methods' names have commas
    rows = fill(tmp_path / "n.csv", layout, lambda index: f"9{index:03d}")
    numbers = paper.read_numbers(tmp_path / "n.csv")
    assert len(numbers) == len(rows) == len(layout.rows) * len(layout.masks) * len(layout.measures)
    page = paper.page(layout, {}, numbers, [])
    assert all(f"9{index:03d}" in page for index in range(len(rows))) and paper.NO_NUMBER not in page


def test_an_empty_form_gives_no_number(tmp_path):
    layout = paper.LAYOUTS["table2"]
    fill(tmp_path / "n.csv", layout, lambda index: "")
    assert paper.read_numbers(tmp_path / "n.csv") == {}
    page = paper.page(layout, {}, {}, [])
    assert paper.NO_NUMBER in page and "paper's number is not available to us" in page
    assert "our reading" in page and "our reading" not in paper.page(paper.LAYOUTS["table8"], {}, {}, [])


def test_our_numbers_stand_beside_the_papers():
    layout = paper.LAYOUTS["table2"]
    row = {"GradPaint": {"lpips": Estimate(0.1234, 0.01), "masked_mse": Estimate(0.5, 0.1)}}
    numbers = {("table2", "imagenet", "thin", "GradPaint", "lpips"): "7.77"}
    stand_in = paper.page(layout, {(paper.STAND_IN, "thin"): row}, numbers, [])
    line = next(line for line in stand_in.splitlines() if line.startswith("| GradPaint |"))
    assert "7.77" in line and "0.1234 +- 0.0100" in line
    assert "**Stand-in**" in stand_in and "ImageNet (missing)" in stand_in
    real = paper.page(layout, {("imagenet", "thin"): row}, numbers, ["imagenet"])
    assert "Stand-in" not in real and "ImageNet LPIPS, ours" in real and "Places2 LPIPS, ours" not in real
    assert "ImageNet (given)" in real and "Places2 (missing)" in real
    assert "LaMa, Palette: run elsewhere" in real


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b\n1,2\n", "has the columns a, b; they must be table, dataset"),
        (
            "table,dataset,mask,method,measure,value\ntable2,imagenet,thin,Stable,fid,3\n",
            "line 2: .*Stable.* is no cell",
        ),
    ],
)
def test_wrong_numbers(tmp_path, text, message):
    (tmp_path / "n.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        paper.read_numbers(tmp_path / "n.csv")
    with pytest.raises(ValueError, match="does not exist"):
        paper.read_numbers(tmp_path / "none.csv")


def test_plan(tmp_path):
    layout = paper.LAYOUTS["table3"]
    plan = PaperRun(layout, tmp_path, [], {})
    assert [folder.name for _, _, folder, _ in plan.blocks()] == ["scenes_thin", "scenes_medium", "scenes_thick"]
    labels = [spec.label for spec in plan.specs(paper.STAND_IN)]
    assert "GradPaint" in labels and "latent COPY" not in labels
    with_codec = PaperRun(layout, tmp_path, [], {}, codec=(None, None)).specs(paper.STAND_IN)
    assert "latent COPY" in [spec.label for spec in with_codec]
    with pytest.raises(ValueError, match="--data names 'ffhq', but table3 has coco"):
        PaperRun(layout, tmp_path, ["ffhq"], {})
    (tmp_path / "lama" / "scenes_thick").mkdir(parents=True)
    plan = PaperRun(paper.LAYOUTS["table2"], tmp_path, [], {}, results={"LaMa": tmp_path / "lama"})
    folders = [plan.results_of(folder) for _, _, folder, _ in plan.blocks()]
    assert folders == [{}, {}, {"LaMa": tmp_path / "lama" / "scenes_thick"}]


def test_fig9_has_its_plots(tmp_path):
    layout = paper.LAYOUTS["fig9"]
    plan = PaperRun(layout, tmp_path, [], {})
    plan.found = {
        (paper.STAND_IN, "thick"): {
            row.title: {"masked_mse": Estimate(0.1 - 0.01 * i, 0.01), "seconds": Estimate(1.0 + i, 0.1)}
            for i, row in enumerate(layout.rows)
        }
    }
    page = plan.write()
    assert "fig9_stand-in_share.png" in page.read_text() and (tmp_path / "fig9_stand-in_seconds.png").is_file()
    assert (tmp_path / "paper_numbers.csv").is_file()


def test_rows_of_others_are_added(tmp_path):
    plan = PaperRun(dataclasses.replace(paper.LAYOUTS["table4"]), tmp_path, [], {}, results={"MAT": tmp_path})
    plan.found = {(paper.STAND_IN, "random_pixels_0.8"): {"MAT": {"lpips": Estimate(0.25, 0.01)}}}
    assert "| MAT | n/a |" in plan.write().read_text()
