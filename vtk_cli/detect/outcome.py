"""What came out of a training: its weights on disk, a page and pictures for people, `summary.json` for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vtk_cli.console import Console
from vtk_cli.data.detection.results import write_results
from vtk_cli.detect.measuring import detector_of
from vtk_cli.detect.network import parameter_count
from vtk_cli.detect.options import TrainOptions
from vtk_cli.detect.preparation import Training
from vtk_cli.detect.report import Measured, Report, number_rows, write_report
from vtk_cli.detect.trained import save_trained
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loop import FitResult
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.models.names import file_metadata

RESULTS = "results.json"


@dataclass(frozen=True, eq=False)
class Outcome:
    """The detector at the end, measured: with its own weights, and with the averaged ones."""

    last: Measured | None
    averaged: Measured | None


def conclude(
    options: TrainOptions,
    training: Training,
    result: FitResult,
    outcome: Outcome,
    *,
    run: RunFolder,
    console: Console,
) -> None:
    """Save the weights, write the pages and pictures, tell the result."""
    note = {"epoch": str(training.plan.epochs)}
    save_weights(options, training, run.path / LAST, result.model, note)
    if result.ema is not None:
        save_weights(options, training, run.path / EMA, result.ema, note)
    if outcome.last is not None:
        write_results(run.path / RESULTS, outcome.last.detections, training.data.train.category_ids)
    rows = [] if outcome.last is None else number_rows(outcome.last)
    spent = _spent(training, result)
    title = f"{training.name} on {Path(options.data).name}"
    found = None if outcome.last is None else outcome.last.boxes.numbers["AP"]
    if found is not None:
        title += f": AP {100 * found:.1f}"
    page = write_report(
        run.path,
        Report(
            title=title,
            about=_about(options, training),
            history=result.history,
            measured=outcome.last,
            batch=_first_batch(training),
            class_names=training.data.train.class_names,
            cost=spent,
            options=options.as_config(),
            warnings=_warnings(training),
            footer=f"vtk detect train --config {run.path / 'config.toml'}",
        ),
    )
    summary = {
        "model": training.name,
        "data": training.data.train.name,
        "images": len(training.data.train),
        "classes": len(training.data.train.class_names),
        "epochs": training.plan.epochs,
        "updates": result.steps,
        **({} if outcome.last is None else outcome.last.to_json()),
        **({} if outcome.averaged is None else {"ema": outcome.averaged.to_json()}),
        **({"best": _best_of(run.path)} if (run.path / BEST).exists() else {}),
        "cost": spent,
        "seed": options.seed,
        "folder": str(run.path),
        "weights": str(run.path / LAST),
        "report": str(page),
    }
    run.finish(summary)
    console.table(title, ("", "value"), [*rows, *spent.items()])
    console.text(f"Look at {page}; the weights are {run.path / LAST}")
    console.emit(summary)


def save_weights(options: TrainOptions, training: Training, path: Path, model: nn.Module, note: dict[str, str]) -> None:
    """Write the weights of `model`, what they are of, and a note on where they come from."""
    save_trained(
        path,
        detector_of(model).state_dict(),
        config=training.config,
        classes=training.data.classes,
        preprocessing=training.preprocessing,
        note={**note, "seed": str(options.seed)},
    )


def _first_batch(training: Training) -> tuple[Any, Any]:
    """The images and targets of the first batch of this process, as the network saw them."""
    batches = training.batches.epoch(0, 0)
    _, images, targets = next(iter(batches))
    close = getattr(training.batches, "close", None)
    if close is not None:
        close()
    return images, targets


def _best_of(folder: Path) -> dict[str, Any]:
    said = file_metadata(folder / BEST)
    return {"epoch": int(said["epoch"]), "AP": float(said["ap"]), "weights": str(folder / BEST)}


def _spent(training: Training, result: FitResult) -> dict[str, Any]:
    """What the training took, name to value."""
    spent: dict[str, Any] = {
        "device": describe_device(training.world.device),
        "M weights": round(parameter_count(training.network) / 1e6, 3),
    }
    if result.images_per_second is not None:
        spent["images/s"] = round(result.images_per_second, 1)
    spent["hours of training in this sitting"] = round(result.train_seconds * training.world.size / 3600, 4)
    return spent


def _about(options: TrainOptions, training: Training) -> str:
    data = training.data
    held = "no validation images" if data.val is None else f"measured on {len(data.val):,} others"
    return (
        f"{len(data.train):,} images with {data.train.objects:,} objects, {training.updates:,} updates of"
        f" {options.batch_size * options.accumulate} images, from {training.started_from}, seed {options.seed}; {held}."
    )


def _warnings(training: Training) -> list[str]:
    said = []
    for split in (training.data.train, training.data.val):
        if split is not None and split.left_out:
            counts = ", ".join(f"{count} x {what}" for what, count in split.left_out)
            said.append(f"{split.name}: wrong entries were left out or mended: {counts}.")
    if training.data.val is not None:
        said.append(
            "The numbers are of the weights at the end. The best epoch was chosen on the validation images, so its"
            " number there flatters."
        )
    return said
