"""What is done with a trained network: `vtk train eval`, `predict` and `export`, each told top to bottom."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.classification import ImageSource, open_classification
from vtk_cli.data.coco_files import find_coco_files
from vtk_cli.data.evaluation_batches import EvaluationBatches, evaluation_transform
from vtk_cli.data.options import DIGITS
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.processes.distributed import World, join_world
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import require_folder
from vtk_cli.models.accuracy import Evaluation, MultiLabelEvaluation
from vtk_cli.models.evaluation import evaluate
from vtk_cli.train.command import EvalOptions, ExportOptions, PredictOptions
from vtk_cli.train.eval_sets import open_sets, score_sets
from vtk_cli.train.exporting import export_network
from vtk_cli.train.outliers import score_outliers
from vtk_cli.train.prediction import predict, prediction_table, predictions_json, write_predictions
from vtk_cli.train.report import evaluation_json, result_rows, score_table, write_evaluation
from vtk_cli.train.robustness import SetScore
from vtk_cli.train.trained import Trained, open_trained

_SHOWN = 20


def evaluate_model(options: EvalOptions, console: Console) -> ExitCode:
    """Measure a trained network on its validation images or on others, and on further sets."""
    if options.out is not None:
        require_folder(options.out)
    with join_world(options.device) as world:
        face = console if world.is_main else Console(quiet=True)
        trained = open_trained(options.model, options.which)
        data, source = _source(options, trained, face)
        evaluation, scores = _measured(options, trained, (data, source), world, face)
        world.on_main(lambda: _tell(options, trained, (data, source), evaluation, scores=scores, console=face))
    return ExitCode.DONE


def _measured(
    options: EvalOptions, trained: Trained, images: tuple[str, ImageSource], world: World, console: Console
) -> tuple[Evaluation | MultiLabelEvaluation, list[SetScore]]:
    """The network on its images (their name, and they themselves) and on the further sets, shared by all processes."""
    data, source = images
    sets = open_sets(options.eval_sets, trained.class_names, console)
    outliers = open_sets(options.outlier_sets, trained.class_names, console, "--outlier-set")
    network, pixels = trained.network.module.to(world.device), trained.network.config
    workers = 0 if data == DIGITS and options.workers is None else worker_count(options.workers)
    batches = EvaluationBatches(
        source,
        evaluation_transform(pixels),
        batch_size=options.batch_size,
        workers=workers,
        console=console,
        world=world,
        pin_memory=world.device.type == "cuda",
    )
    evaluation = evaluate(
        network, batches, pixels=pixels, device=world.device, precision=options.precision, world=world
    )
    batches.close()
    scores = score_sets(
        network,
        sets,
        pixels=pixels,
        device=world.device,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=workers,
        console=console,
        world=world,
    )
    scores += score_outliers(
        network,
        outliers,
        source,
        pixels=pixels,
        device=world.device,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=workers,
        console=console,
        world=world,
    )
    return evaluation, scores


def _tell(
    options: EvalOptions,
    trained: Trained,
    images: tuple[str, ImageSource],
    evaluation: Evaluation | MultiLabelEvaluation,
    *,
    scores: list[SetScore],
    console: Console,
) -> None:
    """Show and write what was measured."""
    data, source = images
    title = f"{trained.network.name.label} on {data}"
    console.table(title, ("", "value"), result_rows(evaluation))
    if scores:
        table = score_table(scores)
        console.table("Other sets", table.columns, table.rows)
    if options.out is not None:
        page = write_evaluation(
            options.out, evaluation, trained.descriptions, images=source, title=title, scores=scores
        )
        console.text(f"Look at {page}")
    console.emit(
        {"model": trained.network.name.label, "data": data, **evaluation_json(evaluation, trained.class_names, scores)}
    )


def predict_images(options: PredictOptions, console: Console) -> ExitCode:
    """Name the likeliest classes of images."""
    require_folder(options.out)
    device = resolve_device(options.device)
    trained = open_trained(options.model, options.which)
    predictions = predict(
        trained.network.module.to(device),
        options.images,
        transform=evaluation_transform(trained.network.config),
        pixels=trained.network.config,
        class_names=trained.descriptions,
        multi_label=trained.multi_label,
        top_k=options.top_k,
        device=device,
        batch_size=options.batch_size,
        workers=options.workers,
        console=console,
    )
    write_predictions(options.out, predictions)
    columns, rows = prediction_table(predictions.rows[:_SHOWN])
    console.table(f"{trained.network.name.label} says", columns, rows)
    if len(predictions.rows) > _SHOWN:
        console.text(f"... and {len(predictions.rows) - _SHOWN} more in {options.out}")
    console.text(f"Look at {options.out / 'predictions.png'}")
    console.emit(predictions_json(predictions))
    return ExitCode.DONE


def export_model(options: ExportOptions, console: Console) -> ExitCode:
    """Write a trained network in other formats, each file read back and compared."""
    trained = open_trained(options.model, options.which)
    folder = options.out or _folder_of(options.model, trained)
    require_folder(folder)
    exports = [
        export_network(
            trained.network.module,
            folder / "model",
            form.value,
            pixels=trained.network.config,
            class_names=trained.class_names,
            multi_label=trained.multi_label,
            tolerance=options.tolerance,
        )
        for form in options.format
    ]
    console.table(
        "Exported, read back and compared",
        ("format", "file", "MB", "largest difference of a logit", "same answers"),
        [
            (one.format, str(one.path), f"{one.bytes / 1e6:.1f}", f"{one.difference:.2g}", f"{one.same_answers:.1%}")
            for one in exports
        ],
    )
    console.emit({"exports": [one.summary() for one in exports]})
    return ExitCode.DONE


def _source(options: EvalOptions, trained: Trained, console: Console) -> tuple[str, ImageSource]:
    """The images to measure on and their name: those named, else the validation images of the network's own run."""
    given, val = options.data, None
    if given is None:
        if trained.run is None:
            raise UserError("these weights are of no run, whose images could be used", options.model, "name DATA too")
        given, val = str(trained.run.options["data"]), trained.run.options.get("val")
    elif _is_one_split(Path(given)):
        val = given
    splits = open_classification(given, val=val, console=console)
    source = splits.val or splits.train
    if source.class_names != trained.class_names:
        strange = sorted(set(source.class_names) - set(trained.class_names))
        unknown = f" (unknown: {', '.join(strange[:3])})" if strange else ""
        what = f"its {len(source.class_names)} classes are not the {len(trained.class_names)} of the network{unknown}"
        raise UserError(what, val or given, "a set with some of the classes is given as --eval-set NAME=PATH")
    return val or given, source


def _is_one_split(folder: Path) -> bool:
    """Whether these are the class folders themselves, with nothing to train on apart."""
    return folder.is_dir() and not (folder / "train").is_dir() and not find_coco_files(folder)


def _folder_of(model: str, trained: Trained) -> Path:
    path = trained.network.name.path
    return path.parent if path is not None else Path(model.replace("/", "-"))
