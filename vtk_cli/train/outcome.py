"""What came out of a training, for people (a table, a page) and for programs (`summary.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loop import FitResult
from vtk_cli.engine.run_weights import BEST, LAST
from vtk_cli.models.accuracy import Evaluation, MultiLabelEvaluation
from vtk_cli.train.cost import StepCost
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.plan import cost_summary
from vtk_cli.train.preparation import Training
from vtk_cli.train.report import Report, result_rows, score_table, write_report
from vtk_cli.train.robustness import SetScore


@dataclass(frozen=True, eq=False)
class Outcome:
    """A training that is done, and the network measured.

    Args:
        result: of the loop.
        cost: of a step; None where it cannot be counted.
        last: the evaluation of the weights at the end; None without validation images.
        averaged: of their average; None where none is kept.
        best: epoch and value of the weights that did best; None without validation images.
        scores: on other sets.
        gradient_norms: of the class loss and of the weighted point loss; None without points.
        broken: training images that could not be read, whichever process found them.
    """

    result: FitResult
    cost: StepCost | None
    last: Evaluation | MultiLabelEvaluation | None
    averaged: Evaluation | MultiLabelEvaluation | None
    best: Mapping[str, Any] | None
    scores: tuple[SetScore, ...]
    gradient_norms: Mapping[str, float] | None
    broken: int


def show_outcome(
    options: TrainOptions, training: Training, outcome: Outcome, folder: Path, console: Console
) -> dict[str, Any]:
    """Write the page, print the tables, and give the summary.

    Args:
        options, training: of the run.
        outcome: what came out.
        folder: of the run.
        console: for the tables.

    Raises:
        JobError: the disk is full.
    """
    rows = [] if outcome.last is None else result_rows(outcome.last)
    title = f"{options.network} on {options.data_name}" + (f": {rows[0][0]} {rows[0][1]}" if rows else "")
    spent = _spent_rows(training, outcome)
    page = write_report(
        folder,
        Report(
            title,
            _about(options, training),
            dict(rows[:2]),
            outcome.result.history,
            outcome.last,
            training.data.splits.train.class_names,
            images=training.data.splits.val,
            cost=dict(spent),
            scores=outcome.scores,
            options=options.as_config(),
            warnings=_warnings(options, training, outcome),
            footer=f"vtk train --config {folder / 'config.toml'}",
        ),
    )
    console.table(title, ("", "value"), [*rows, *_further_rows(outcome), *spent])
    if outcome.scores:
        table = score_table(outcome.scores)
        console.table("Other sets", table.columns, table.rows)
    console.text(f"Look at {page}; the weights are {folder / LAST}")
    return _summary(options, training, outcome, folder, page)


def _summary(options: TrainOptions, training: Training, outcome: Outcome, folder: Path, page: Path) -> dict[str, Any]:
    result, train = outcome.result, training.data.splits.train
    best = {} if outcome.best is None else {"best": {**outcome.best, "weights": str(folder / BEST)}}
    return {
        "network": options.network,
        "data": options.data,
        "images": len(train),
        "classes": len(train.class_names),
        "epochs": options.epochs,
        "updates": result.steps,
        **_numbers("", outcome.last),
        **_numbers("ema_", outcome.averaged),
        **best,
        "sets": {
            score.name: {"measure": score.measure, "value": score.value, "images": score.images}
            for score in outcome.scores
        },
        **({} if outcome.gradient_norms is None else {"gradient_norms": dict(outcome.gradient_norms)}),
        "device": describe_device(training.world.device),
        "processes": training.world.size,
        **cost_summary(outcome.cost),
        "images_per_second": result.images_per_second,
        "device_hours": result.train_seconds * training.world.size / 3600,
        "seed": options.seed,
        "folder": str(folder),
        "weights": str(folder / LAST),
        "report": str(page),
    }


def _further_rows(outcome: Outcome) -> list[tuple[str, str]]:
    """The headline of the averaged weights, when they did best, and how much the points count."""
    rows = []
    if outcome.averaged is not None:
        name, value = result_rows(outcome.averaged)[0]
        rows.append((f"{name} of the averaged weights", value))
    if outcome.best is not None:
        value = next(value for name, value in outcome.best.items() if name != "epoch")
        rows.append(("best epoch", f"{outcome.best['epoch']} ({100 * value:.2f} %)"))
    if outcome.gradient_norms is not None:
        norms = outcome.gradient_norms
        rows.append(("pull of the points against the classes", f"{norms['points']:.2g} : {norms['class']:.2g}"))
    return rows


def _spent_rows(training: Training, outcome: Outcome) -> list[tuple[str, str]]:
    """What the training took."""
    world, result, cost = training.world, outcome.result, outcome.cost
    processes = f", {world.size} processes" if world.size > 1 else ""
    rows = [("device", f"{describe_device(world.device)}{processes}")]
    if cost is not None:
        rows.append(("GMACs an image", f"{cost.main / 1e9:.3g}"))
        if cost.sub is not None:
            rows.append(("GMACs of its sub-branch", f"{cost.sub / 1e9:.3g}"))
            rows.append(("step against plain training", f"{cost.factor:.2f}x"))
    if result.images_per_second is not None:
        rows.append(("images/s", f"{result.images_per_second:,.0f}"))
        rows.append(("training, this sitting", _duration(result.train_seconds)))
    return rows


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.2f} h"
        if seconds >= 3600
        else f"{seconds / 60:.1f} min"
        if seconds >= 60
        else f"{seconds:.1f} s"
    )


def _about(options: TrainOptions, training: Training) -> str:
    splits = training.data.splits
    with_sub = f"with a sub-branch ({options.sub}, ratio {options.sub_ratio})"
    sub = "without a sub-branch" if options.sub == "none" else with_sub
    held = "no validation images" if splits.val is None else f"measured on {len(splits.val):,} others"
    return f"{len(splits.train):,} images, {options.epochs} epochs {sub}, seed {options.seed}; {held}."


def _warnings(options: TrainOptions, training: Training, outcome: Outcome) -> list[str]:
    said = []
    if outcome.broken:
        said.append(f"{outcome.broken} training images could not be read; the next image took the place of each.")
    if options.sub != "none" and training.data.points is not None:
        said.append("A sub-branch together with byproducts is in neither paper; nothing is known of the combination.")
    if training.data.splits.val is not None:
        said.append(
            "The numbers are of the weights at the end. The best epoch was chosen on the validation images, so its"
            " number there flatters."
        )
    return said


def _numbers(prefix: str, evaluation: Evaluation | MultiLabelEvaluation | None) -> dict[str, float]:
    return {} if evaluation is None else {f"{prefix}{name}": value for name, value in evaluation.scalars().items()}
