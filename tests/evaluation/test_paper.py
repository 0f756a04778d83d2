"""The paper's tables: its numbers are all there, every row can be run, and the page says what is missing and why."""

import csv

import pytest

from gradpaint.cli import evaluate as cli_evaluate
from gradpaint.evaluation.methodspec import parse_method
from gradpaint.evaluation.metrics import Estimate
from gradpaint.evaluation.paper import layouts, numbers
from gradpaint.evaluation.paper.page import MEASURES, NOT_RUN, STAND_IN, PageContent, page
from gradpaint.evaluation.paper.run import Given, PaperRun, Task
from gradpaint.masks import make_mask
from gradpaint.method.settings import GuidanceSettings

LAYOUTS = layouts.LAYOUTS
NAMES = {*(f"table{number}" for number in (1, 2, 3, 4, 7, 8, 9)), "fig2", "fig3a", "fig3b", "fig9", "fig10"}


def table_of(text):
    """The first table of a page: row -> heading -> cell."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| method |"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def heading(layout, column, mask, measure):
    words = [column.title, mask.title if len(layout.masks) > 1 else "", MEASURES[measure][0]]
    return " ".join(filter(None, words)) + ", paper"


def shipped():
    """The shipped CSV's rows, read without the package."""
    lines = [line for line in numbers.FILE.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def test_the_command_knows_every_table_and_figure():
    assert set(cli_evaluate.PAPER) == set(LAYOUTS) == NAMES
    assert {name for name, layout in LAYOUTS.items() if layout.figure} == set(cli_evaluate.FIGURES)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_row_and_mask_can_be_made(layout):
    for row in layout.rows:
        for text in filter(None, (row.spec(stand_in=True), row.spec(stand_in=False))):
            parse_method(text)
    for mask in layout.masks:
        make_mask(mask.kind, 64, 64, 0, **dict(mask.options))
    assert len({row.title for row in layout.rows}) == len(layout.rows)
    assert set(layout.measures) <= set(MEASURES)


def test_the_shipped_numbers_name_their_source():
    text = numbers.FILE.read_text()
    assert "Grechka" in text and "Couairon" in text and "Cord" in text and len(shipped()) == 183
    assert len(numbers.paper_numbers()) == 183


def test_all_183_numbers_are_in_the_pages_cells():
    seen = 0
    tables = {name: layout for name, layout in LAYOUTS.items() if not layout.figure}
    pages = {name: table_of(page(layout, PageContent(numbers.paper_numbers()))) for name, layout in tables.items()}
    for row in shipped():
        layout = LAYOUTS[row["table"]]
        place = next(
            heading(layout, column, mask, row["measure"])
            for column in layout.columns
            for mask in layout.masks
            if layout.key(column, mask, row["method"], row["measure"])[1:3] == (row["dataset"], row["mask"])
        )
        cell = pages[row["table"]][row["method"]][place]
        assert cell == ("n/a in the paper" if row["value"] == "n/a" else row["value"])
        seen += 1
    assert seen == 183
    cells = [cell for rows in pages.values() for row in rows.values() for name, cell in row.items() if "paper" in name]
    assert len([cell for cell in cells if cell != "-"]) == 183  # each once, and nothing that the paper does not have


def test_rows_are_in_the_papers_order():
    for name, layout in LAYOUTS.items():
        methods = list(dict.fromkeys(row["method"] for row in shipped() if row["table"] == name))
        assert [row.title for row in layout.rows if row.title in methods] == methods
        assert not methods or len(methods) == len(layout.rows)


def test_what_the_paper_says():
    repaint = parse_method(next(row for row in LAYOUTS["table1"].rows if row.title == "RePaint").ours)
    assert (repaint.steps, repaint.options["resamplings"]) == (250, 10)
    assert "trained on CelebA-HQ" in LAYOUTS["table1"].column("ffhq").model
    assert "trained on FFHQ" in LAYOUTS["table9"].column("celebahq").model
    assert "CelebA-HQ" in LAYOUTS["table3"].column("ffhq").model
    assert LAYOUTS["table8"].seeds == 500 and LAYOUTS["table8"].images == 1
    shares = [row.share for row in LAYOUTS["fig9"].rows]
    assert shares == [0.13, 0.25, 0.38, 0.5, 0.63, 0.75, 1.0]
    assert [parse_method(row.ours).guidance["stop"] for row in LAYOUTS["fig9"].rows] == shares
    assert not [row for layout in LAYOUTS.values() for row in layout.rows if "DPS" in row.title]
    paper, fast = (parse_method(row.ours).settings(GuidanceSettings()) for row in (layouts.GRADPAINT, layouts.FAST))
    assert paper.schedule.fraction == 1 and fast.schedule.fraction == 0.5
    without = parse_method(layouts.WITHOUT_ALIGNMENT.ours).settings(GuidanceSettings())
    latent = parse_method(layouts.LATENT.ours).settings(GuidanceSettings())
    assert without.alignment.lambda_al == latent.alignment.lambda_al == 0 and latent.schedule.fraction == 1
    ticks = {row.title: row.ticks for row in LAYOUTS["table7"].rows}
    assert ticks["LaMa"] == (False, False) and ticks["Palette"] == (False, True) and ticks["GradPaint"] == (True, True)


def test_not_run_is_told_from_the_papers_own_gaps():
    content = PageContent(numbers.paper_numbers(), problems={"lpips": "no weights"}, missing_rows={"LaMa": "not ours"})
    content.results["stand-in", "thick"] = {"GradPaint": {"fid": Estimate(12.345, 0.5)}}
    text = page(LAYOUTS["table1"], content)
    rows = table_of(text)
    assert rows["LaMa"]["CelebA-HQ FID, paper"] == "n/a in the paper" and rows["LaMa"]["stand-in FID"] == NOT_RUN
    assert rows["GradPaint"]["stand-in FID"] == "12.35 +- 0.50" or rows["GradPaint"]["stand-in FID"] == "12.34 +- 0.50"
    assert rows["GradPaint"]["stand-in LPIPS (AlexNet)"] == NOT_RUN
    assert "LPIPS not run: no weights." in text and "LaMa not run: not ours." in text
    assert "training-free" not in text
    assert "| LaMa |  |  | 0.02 |" in page(LAYOUTS["table7"], PageContent(content.numbers))


def test_our_numbers_stand_beside_the_papers():
    ours = {"GradPaint": {"lpips": Estimate(0.1234, 0.01)}}
    content = PageContent(numbers.paper_numbers(), {("ffhq", "thick"): ours}, ["ffhq"], net="squeeze")
    text = page(LAYOUTS["table1"], content)
    row = table_of(text)["GradPaint"]
    headings = list(row)
    assert headings[1:5] == ["FFHQ FID, paper", "FFHQ FID, ours", "FFHQ LPIPS, paper", "FFHQ LPIPS (SqueezeNet), ours"]
    assert row["FFHQ LPIPS (SqueezeNet), ours"] == "0.1234 +- 0.0100" and row["FFHQ LPIPS, paper"] == "0.084"
    assert "CelebA-HQ FID, ours" not in row and "Stand-in" not in text
    assert "FFHQ (given)" in text and "CelebA-HQ (missing)" in text


def test_a_users_numbers_replace_the_papers(tmp_path):
    layout = LAYOUTS["fig9"]  # the paper prints none of its numbers
    rows = list(csv.DictReader(numbers.as_csv(layout, {}).splitlines()))
    assert len(rows) == 7 * 3 and all(row["value"] == "" for row in rows)
    path = tmp_path / "n.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, numbers.COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "value": f"9{index:03d}"} for index, row in enumerate(rows))
    given = numbers.read_numbers(path)
    text = page(layout, PageContent(given))
    assert len(given) == 21 and all(f"| 9{index:03d} |" in text for index in range(21))
    filled = numbers.as_csv(LAYOUTS["table4"], numbers.paper_numbers())
    assert "table4,places2,random_pixels_0.8,GradPaint,lpips,0.277" in filled.splitlines()
    path.write_text(numbers.as_csv(layout, {}))
    assert numbers.read_numbers(path) == {}


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
        numbers.read_numbers(tmp_path / "n.csv")
    with pytest.raises(ValueError, match="does not exist"):
        numbers.read_numbers(tmp_path / "none.csv")


def test_plan_of_the_stand_in(tmp_path):
    plan = PaperRun(LAYOUTS["table9"], tmp_path, Given(), {})
    assert [task.folder.name for task in plan.tasks()] == ["scenes_thin", "scenes_medium"]
    labels = [spec.label for spec in plan.specs(STAND_IN)]
    assert labels == ["COPY", "GREYFILL", "RePaint", "MCG", "Combine-noisy", "Combine-image", "GradPaint"]
    assert set(plan.content.missing_rows) == {"LaMa", "Palette"}
    assert all(spec.steps is None for spec in plan.specs(STAND_IN))
    with pytest.raises(ValueError, match="--data names 'coco', but table9 has ffhq, celebahq"):
        PaperRun(LAYOUTS["table9"], tmp_path, Given(columns=["coco"]), {})


def test_plan_with_data(tmp_path):
    given = Given(columns=["imagenet", "coco"], models={"imagenet"}, latent={"imagenet"}, codecs={"coco"})
    plan = PaperRun(LAYOUTS["table3"], tmp_path, given, {})
    assert [task.folder.name for task in plan.tasks()] == ["imagenet_thick", "coco_thick"]
    names = {column: [spec.label for spec in plan.specs(column)] for column in given.columns}
    assert names["imagenet"] == ["COPY", "latent COPY", "GREYFILL", "Combine-noisy", "Combine-image", "GradPaint"]
    assert names["coco"] == ["COPY", "latent COPY", "GREYFILL"]
    assert "--data coco is for Stable Diffusion through ComfyUI" in plan.content.missing_rows["GradPaint"]
    plan = PaperRun(LAYOUTS["table3"], tmp_path, Given(columns=["ffhq"]), {})
    assert [spec.label for spec in plan.specs("ffhq")] == ["COPY", "GREYFILL"]
    assert "--codec" in plan.content.missing_rows["latent COPY"]
    assert "no --model ffhq=CHECKPOINT" in plan.content.missing_rows["GradPaint"]


def test_rows_that_the_paper_does_not_have_are_marked(tmp_path):
    (tmp_path / "lama" / "scenes_thick").mkdir(parents=True)
    results = {"LaMa": tmp_path / "lama", "MAT": tmp_path / "lama", "none": tmp_path}
    plan = PaperRun(LAYOUTS["table1"], tmp_path / "out", Given(results=results, methods=["dps"]), {})
    folder = tmp_path / "out" / "scenes_thick"
    lama = tmp_path / "lama" / "scenes_thick"
    assert plan.results_of(folder) == {"LaMa": lama, "MAT (not in the paper)": lama}
    assert [spec.label for spec in plan.specs(STAND_IN)][-1] == "dps (not in the paper)"
    assert "LaMa" not in plan.content.missing_rows
    text = plan.write().read_text()
    assert list(table_of(text))[-3:] == ["dps (not in the paper)", "MAT (not in the paper)", "none (not in the paper)"]


def test_fig9_has_its_plots(tmp_path):
    layout = LAYOUTS["fig9"]
    plan = PaperRun(layout, tmp_path, Given(), {})
    means = {
        row.title: {
            "lpips": Estimate(0.1 - 0.01 * i, 0.01),
            "fid": Estimate(9.0 - i, 1.0),
            "seconds": Estimate(1.0 + i, 0.1),
        }
        for i, row in enumerate(layout.rows)
    }
    plan.content.results[STAND_IN, "thick"] = means
    text = plan.write().read_text()
    for name in ("fid_seconds", "fid_share", "lpips_seconds", "lpips_share"):
        assert f"fig9_stand-in_{name}.png" in text and (tmp_path / f"fig9_stand-in_{name}.png").is_file()
    assert (tmp_path / "paper_numbers.csv").is_file()


def test_a_task_knows_its_place():
    task = next(iter(PaperRun(LAYOUTS["table4"], "out", Given(columns=["places2"]), {}).tasks()))
    assert isinstance(task, Task) and (task.column, task.mask.slug) == ("places2", "random_pixels_0.8")
