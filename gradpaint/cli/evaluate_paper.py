"""`gradpaint evaluate --paper`: a table or figure of the paper, on the data given or on the bundled model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..evaluation.block import Block, Evaluation
from ..evaluation.methodspec import MethodSpec, parse_method
from ..evaluation.paper.figures import FigureRun
from ..evaluation.paper.layouts import LAYOUTS, Layout
from ..evaluation.paper.numbers import paper_numbers, read_numbers
from ..evaluation.paper.page import STAND_IN
from ..evaluation.paper.run import PAPER_STEPS, STAND_IN_STEPS, Given, PaperRun, Task, check_kind
from ..latent_diffusion import load_checkpoint
from . import arguments as shared
from .evaluate_inputs import Inputs, build_block, inputs_by_name, named_folders, paper_scoring
from .evaluate_models import Models


def table(arguments: argparse.Namespace, out: Path) -> int:
    """Run a table's rows and write its page."""
    if arguments.mask != "thick" or arguments.masks or shared.mask_options(arguments):
        raise ValueError("--mask, its options and --masks are given by --paper's table; leave them out")
    layout = LAYOUTS[arguments.paper]
    inputs, plan = _plan(arguments, layout, out)
    scoring = paper_scoring(arguments, layout.name)
    models, planned = Models(arguments), []
    for task in plan.tasks():
        its = inputs.get(task.column, Inputs())
        block = build_block(
            arguments,
            models,
            its,
            folder=task.folder,
            title=task.title,
            specs=plan.specs(task.column),
            results=plan.results_of(task.folder),
            mask=(task.mask.kind, dict(task.mask.options)),
            scoring=scoring,
            **_amounts(arguments, layout, bool(inputs)),
        )
        planned.append((task, its, Evaluation(block)))
    page = _run(plan, planned, models)
    print(page.read_text(encoding="utf-8"))
    print(f"written to {out}: {page.name}, paper_numbers.csv, and each block's results in its folder")
    return 0


def _plan(arguments: argparse.Namespace, layout: Layout, out: Path) -> tuple[dict[str, Inputs], PaperRun]:
    inputs = inputs_by_name(arguments, [column.name for column in layout.columns])
    for name, its in inputs.items():
        _check_file(layout, name, its)
    given = Given(
        columns=list(inputs),
        models={name for name, its in inputs.items() if its.run_model},
        latent={name for name, its in inputs.items() if its.latent},
        codecs={name for name, its in inputs.items() if its.codec},
        results=named_folders(arguments.results, "--results"),
        methods=arguments.methods or [],
    )
    numbers = paper_numbers()
    if arguments.paper_numbers:
        numbers |= read_numbers(arguments.paper_numbers)
    return inputs, PaperRun(layout, out, given, numbers, arguments.command_line)


def _check_file(layout: Layout, name: str, inputs: Inputs) -> None:
    """Check a model's file as far as it decides of what kind it is.

    Raises:
        ValueError: it does not exist, or it is a .ckpt where a model of pixels is due, and no model at all.
    """
    if inputs.model is None:
        return
    if not inputs.model.is_file():
        raise ValueError(f"--model {inputs.model} does not exist")
    if inputs.latent and any(column.name == name and column.latent is False for column in layout.columns):
        load_checkpoint(inputs.model)  # every .ckpt counts as latent; this says what is wrong with others


def _amounts(arguments: argparse.Namespace, layout: Layout, real: bool) -> dict:
    """Steps, seeds and number of images: as the command says, or else as the paper has it, or a quick look."""
    return {
        "steps": arguments.steps or (PAPER_STEPS if real else STAND_IN_STEPS),
        "seeds": arguments.seeds or list(range(layout.seeds if real else layout.stand_in_seeds)),
        "count": arguments.n or (layout.images if real else layout.stand_in_images),
    }


def _run(plan: PaperRun, planned: list[tuple[Task, Inputs, Evaluation]], models: Models) -> Path:
    """Run the blocks one after the other; an interruption leaves a page of what is done."""
    for task, inputs, evaluation in planned:
        try:
            evaluation.run(models.load(inputs))
        except KeyboardInterrupt:
            plan.add(task, evaluation)
            plan.write()
            raise
        plan.add(task, evaluation)
    return plan.write()


def figure(arguments: argparse.Namespace, out: Path) -> int:
    """Run what a figure shows and draw it."""
    for name in ("methods", "results", "paper_numbers", "fid"):
        if getattr(arguments, name):
            raise ValueError(f"--{name.replace('_', '-')} plays no part in --paper {arguments.paper}; leave it out")
    layout = LAYOUTS[arguments.paper]
    given = inputs_by_name(arguments, [column.name for column in layout.columns])
    inputs = next(iter(given.values()), Inputs())
    if not inputs.run_model:
        raise ValueError(f"--data without --model; --paper {layout.name} runs a model on these images")
    for name, its in given.items():
        _check_file(layout, name, its)
        check_kind(layout, name, its.latent)
    models = Models(arguments)
    block = _figure_block(arguments, models, inputs, layout, out)
    page = FigureRun(layout, block).run(models.load(inputs))
    print(page.read_text(encoding="utf-8"))
    print(f"written to {out}: {page.name} and {layout.name}_NAME.png of each image")
    return 0


def _figure_block(arguments: argparse.Namespace, models: Models, inputs: Inputs, layout: Layout, out: Path) -> Block:
    specs: list[MethodSpec] = []
    for row in layout.rows:
        text = row.spec(stand_in=inputs.data is None)
        if text is not None:
            specs.append(parse_method(text, row.title))
    return build_block(
        arguments,
        models,
        inputs,
        folder=out,
        title=f"{layout.name}, {STAND_IN}" if inputs.data is None else layout.name,
        specs=specs,
        results={},
        mask=(arguments.mask, shared.mask_options(arguments)),
        **_amounts(arguments, layout, inputs.data is not None),
    )
