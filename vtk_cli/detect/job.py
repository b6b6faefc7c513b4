"""The story of `vtk detect train`, top to bottom.

Images with objects are opened, the detector is built or loaded; the engine trains it on the losses of all levels; what
comes out is measured as COCO does, saved and shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.evaluation import Evaluation, evaluate_boxes, evaluate_masks
from vtk_cli.data.detection.results import Detections, write_results
from vtk_cli.detect.checkpoint import Detector
from vtk_cli.detect.inference import EvaluationBatches, detect
from vtk_cli.detect.network import NeckFreeViDT, ViDT, parameter_count
from vtk_cli.detect.options import TrainOptions
from vtk_cli.detect.preparation import Training, open_data, prepare
from vtk_cli.detect.report import Measured, Report, number_rows, write_report
from vtk_cli.detect.trained import save_trained
from vtk_cli.engine.devices import Precision, describe_device, resolve_precision
from vtk_cli.engine.distributed import World, join_world, shared_run_folder
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.errors import ExitCode, JobError
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.models.names import file_metadata

RESULTS = "results.json"
_MAY_CHANGE = {"device", "workers", "checkpoint-seconds"}
"""Options that may differ when a run goes on: the result does not depend on them."""


def train_detector(options: TrainOptions, console: Console) -> ExitCode:
    """Train: the whole command, or its plan."""
    with join_world(options.device) as world:
        face = console if world.is_main else Console(quiet=True)
        training = prepare(options, open_data(options, face), world, face)
        if options.dry_run:
            _show_plan(options, training, face)
            return ExitCode.DONE
        with shared_run_folder(
            world,
            lambda: RunFolder.open(
                "detect train",
                f"{Path(options.data).name}-{training.name}",
                config=options.as_config(),
                out=options.out,
                console=face,
                seed=options.seed,
                device=describe_device(world.device),
                may_change=_MAY_CHANGE if options.out else (),
            ),
        ) as run:
            face.note(
                f"{training.name}: {parameter_count(training.network) / 1e6:.2f} M weights, from"
                f" {training.started_from}"
            )
            result = fitted(options, training, run, face)
            outcome = _measure(training, result)
            world.on_main(lambda: _conclude(options, training, result, outcome, run=run, console=face))
    return ExitCode.DONE


@dataclass(frozen=True, eq=False)
class _Outcome:
    """The detector at the end, measured: with its own weights, and with the averaged ones."""

    last: Measured | None
    averaged: Measured | None


def fitted(options: TrainOptions, training: Training, run: RunFolder, console: Console) -> FitResult:
    """Train, evaluating as the plan says and keeping the weights that did best.

    Raises:
        JobError: the loss is not finite; the message names its terms and the images.
    """
    try:
        return fit(
            training.network,
            training.objective,
            training.batches,
            training.optimizer,
            plan=training.plan,
            device=training.world.device,
            seed=options.seed,
            scheduler=training.scheduler,
            evaluate=None if training.validation is None else lambda model: _measured(training, model).scalars(),
            after_epoch=BestWeights(run.path / BEST, "ap", partial(_save, options, training)),
            checkpoints=run.checkpoints,
            metrics=run.path / "metrics.jsonl",
            console=console,
            description=f"training {training.name}",
            world=training.world,
        )
    except JobError as error:
        blame = training.objective.blame()
        raise JobError(f"{error} ({blame})" if blame else str(error)) from error
    finally:
        if training.validation is not None:
            training.validation.close()


def measured(
    network: Detector,
    batches: EvaluationBatches,
    *,
    world: World,
    precision: Precision,
    masks: bool,
    console: Console,
) -> Measured:
    """What `network` finds in all images, and how good that is; in every process."""
    found = detect(network, batches, device=world.device, precision=precision, masks=masks, console=console)
    evaluations = world.on_main(lambda: evaluations_of(batches.dataset, found, masks=masks))
    return Measured(batches.dataset, found, *evaluations)


def evaluations_of(
    dataset: DetectionSet, found: list[Detections], *, masks: bool
) -> tuple[Evaluation, Evaluation | None]:
    """Of boxes, and of masks where these are asked for."""
    return evaluate_boxes(dataset, found), evaluate_masks(dataset, found) if masks else None


def measures_masks(network: Detector, dataset: DetectionSet) -> bool:
    """Whether there are masks to measure: the detector says them, and every object has one."""
    return network.config.mask_coefficients > 0 and dataset.objects > 0 and dataset.outlined == dataset.objects


def _measured(training: Training, model: nn.Module) -> Measured:
    if training.validation is None:
        raise ValueError("there are no validation images")
    network = _detector(model)
    return measured(
        network,
        training.validation,
        world=training.world,
        precision=training.plan.precision,
        masks=measures_masks(network, training.validation.dataset),
        console=Console(quiet=True),  # the training's progress is on show
    )


def _measure(training: Training, result: FitResult) -> _Outcome:
    """Measure what came out."""
    if training.validation is None:
        return _Outcome(None, None)
    last = _measured(training, result.model)
    averaged = None if result.ema is None else _measured(training, result.ema)
    training.validation.close()
    return _Outcome(last, averaged)


def _conclude(
    options: TrainOptions,
    training: Training,
    result: FitResult,
    outcome: _Outcome,
    *,
    run: RunFolder,
    console: Console,
) -> None:
    """Save the weights, write the pages and pictures, tell the result."""
    note = {"epoch": str(training.plan.epochs)}
    _save(options, training, run.path / LAST, result.model, note)
    if result.ema is not None:
        _save(options, training, run.path / EMA, result.ema, note)
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


def _save(options: TrainOptions, training: Training, path: Path, model: nn.Module, note: dict[str, str]) -> None:
    save_trained(
        path,
        _detector(model).state_dict(),
        config=training.config,
        classes=training.data.classes,
        preprocessing=training.preprocessing,
        note={**note, "seed": str(options.seed)},
    )


def _detector(model: nn.Module) -> Detector:
    if not isinstance(model, (ViDT, NeckFreeViDT)):
        raise TypeError(f"a {type(model).__name__} is no detector")
    return model


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


def _show_plan(options: TrainOptions, training: Training, console: Console) -> None:
    """What `--dry-run` says; nothing is written."""
    data, config = training.data, training.config
    learns = ["boxes", *(["masks"] if config.mask_coefficients else []), *(["IoU"] if config.iou_aware else [])]
    rows: list[tuple[str, object]] = [
        ("detector", training.name),
        ("weights", f"{parameter_count(training.network):,}, from {training.started_from}"),
        ("learns", ", ".join([*learns, *(["token labels"] if config.token_labels else [])])),
        ("DET tokens", config.queries),
        ("input", f"{options.resize}, {options.size} pixels"),
        ("training images", f"{len(data.train):,} with {data.train.objects:,} objects"),
        ("classes", len(data.train.class_names)),
        ("validation images", "none" if data.val is None else f"{len(data.val):,}"),
        ("updates", f"{training.updates:,} in {training.plan.epochs} epochs"),
        ("learning rate", f"{options.lr:g}"),
        ("precision", resolve_precision(training.plan.precision, training.world.device)),
    ]
    console.table("Plan", ("", "value"), rows)
    console.emit({name: str(value) for name, value in rows})


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
