"""What is done with a trained detector: `vtk detect eval`, `predict`, `export`, `convert`, each told top to bottom."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, open_detection
from vtk_cli.data.inputs import find_inputs
from vtk_cli.detect.checkpoint import read_detector, save_official
from vtk_cli.detect.classes import UNUSED, select_labels
from vtk_cli.detect.command import ConvertOptions, EvalOptions, ExportOptions, PredictOptions
from vtk_cli.detect.configurations import Classes
from vtk_cli.detect.exporting import export_detector
from vtk_cli.detect.inference import EvaluationBatches, Inference
from vtk_cli.detect.measuring import measured, measures_masks
from vtk_cli.detect.options import SCENES
from vtk_cli.detect.prediction import Predictor, Shown, Wanted, predict, prediction_rows, predictions_json
from vtk_cli.detect.preprocessing import Preprocessing
from vtk_cli.detect.report import CLASS_COLUMNS, Measured, class_rows, number_rows, write_evaluation
from vtk_cli.detect.trained import Trained, open_trained, save_trained
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.processes.distributed import join_world
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import require_folder

_SHOWN = 20


def evaluate_model(options: EvalOptions, console: Console) -> ExitCode:
    """Measure a trained detector on its validation images or on others."""
    if not options.model:
        raise UserError("which detector?", "MODEL", "name a run folder or a weight file")
    if options.out is not None:
        require_folder(options.out)
    with join_world(options.device) as world:
        face = console if world.is_main else Console(quiet=True)
        trained = open_trained(options.model, options.which, dec_layers=options.dec_layers)
        dataset = _dataset(options, trained, face)
        trained = trained.of_classes(Classes(dataset.class_names, dataset.category_ids))
        network = trained.network.to(world.device)
        preprocessing = trained.preprocessing.resized(options.size)
        batches = EvaluationBatches(
            dataset,
            preprocessing,
            batch_size=options.batch_size,
            workers=0 if options.data is None and options.workers is None else worker_count(options.workers),
            world=world,
            pin_memory=world.device.type == "cuda",
        )
        found = measured(
            network,
            batches,
            world=world,
            precision=options.precision,
            masks=options.masks and measures_masks(network, dataset),
            console=face,
        )
        batches.close()
        world.on_main(lambda: _tell(options, found, _words(preprocessing), face))
    return ExitCode.DONE


def _tell(options: EvalOptions, found: Measured, seen: str, console: Console) -> None:
    """Show and write how good a detector is; `seen` says how it saw the images."""
    dataset = found.dataset
    title = f"{options.model} on {dataset.name}"
    console.table(title, ("", "%"), number_rows(found))
    console.table("Classes, boxes, in %", CLASS_COLUMNS, class_rows(found.boxes))
    if found.masks is not None:
        console.table("Classes, masks, in %", CLASS_COLUMNS, class_rows(found.masks))
    if options.out is not None:
        about = f"{len(dataset):,} images with {dataset.objects:,} objects, {seen}."
        console.text(f"Look at {write_evaluation(options.out, found, title, about)}")
    console.emit({"model": options.model, "data": dataset.name, **found.to_json()})


def predict_images(options: PredictOptions, console: Console) -> ExitCode:
    """Find objects in images and videos."""
    files = find_inputs(options.images)
    require_folder(options.out)
    device = resolve_device(options.device)
    trained = open_trained(options.model, options.which, dec_layers=options.dec_layers)
    if options.mask and not trained.has_masks:
        raise UserError("the detector has learned no masks", "--mask", "train it with --masks on")
    classes = trained.saved.classes
    labels = trained.labels_named(options.classes)
    if labels is None and UNUSED in classes.names:
        labels = [label for label, name in enumerate(classes.names) if name != UNUSED]
    predictor = Predictor(
        Inference(trained.network.to(device), device, options.precision),
        trained.preprocessing.resized(options.size),
        device,
        classes.names,
        classes.category_ids,
        Shown(options.conf, labels, options.max_det, options.mask),
        options.batch_size,
    )
    predictions = predict(
        predictor,
        files,
        options.out,
        wanted=Wanted(options.save_txt, options.save_json, options.crop),
        every=options.every,
        threads=options.workers,
        console=console,
    )
    rows = prediction_rows(predictions, classes.names)
    console.table(f"{trained.saved.path} finds", ("file", "objects"), rows[:_SHOWN])
    if len(rows) > _SHOWN:
        console.text(f"... and {len(rows) - _SHOWN} more files")
    console.text(f"Look at {predictions.pictures[0] if len(predictions.pictures) == 1 else options.out}")
    console.emit(predictions_json(predictions, predictor))
    return ExitCode.DONE


def export_model(options: ExportOptions, console: Console) -> ExitCode:
    """Write a trained detector as ONNX, read it back and compare."""
    if not options.model:
        raise UserError("which detector?", "MODEL", "name a run folder or a weight file")
    batch = _batch(options.batch)
    trained = open_trained(options.model, options.which, dec_layers=options.dec_layers)
    path = trained.saved.path
    folder = options.out or path.parent
    require_folder(folder)
    export = export_detector(
        trained.network,
        folder / f"{path.stem}.onnx",
        size=_size(options.size, trained.preprocessing),
        batch=batch,
        classes=trained.saved.classes,
        codes=options.mask,
        tolerance=options.tolerance,
    )
    console.table(
        "Exported, read back in onnxruntime and compared",
        ("", "value"),
        [
            ("file", str(export.path)),
            ("MB", f"{export.bytes / 1e6:.1f}"),
            ("images at a time", str(export.batch or "any")),
            ("height x width", f"{export.size[0]} x {export.size[1]}"),
            ("largest difference", f"{export.difference:.2g}"),
            ("as a share of the largest number", f"{export.share:.2g}"),
            ("queries with the same class", f"{export.same_answers:.1%}"),
        ],
    )
    console.emit(export.summary())
    return ExitCode.DONE


def convert_file(options: ConvertOptions, console: Console) -> ExitCode:
    """Turn a published file into ours, or the other way round."""
    if options.file is None:
        raise UserError("which file?", "FILE", "name a vidt_*.pth or a weight file of vtk detect")
    if not options.file.is_file():
        raise UserError("no such file", str(options.file), "check the path")
    saved = read_detector(options.file)
    config, classes, state = saved.config, saved.classes, saved.state
    if options.coco_classes:
        kept = [label for label, name in enumerate(classes.names) if name != UNUSED]
        if len(kept) == len(classes.names):
            raise UserError("every row is in use", "--coco-classes", "leave it out")
        state, config = select_labels(state, config, kept)
        classes = Classes(
            tuple(classes.names[label] for label in kept), tuple(classes.category_ids[label] for label in kept)
        )
    saved.build()  # every tensor finds its place, or it is said which does not
    suffix = ".safetensors" if options.to == "vtk" else ".pth"
    target = options.out or options.file.with_suffix(suffix)
    if target == options.file or target.is_dir():
        what = "is a folder" if target.is_dir() else "is the file itself"
        raise UserError(what, f"--out {target}", "name another file")
    if options.to == "vtk":
        try:
            preprocessing = Preprocessing.of_note(saved.metadata)
        except ValueError as error:
            raise UserError(f"describes no detector ({error})", str(options.file)) from error
        note = {"converted_from": options.file.name}
        save_trained(target, state, config=config, classes=classes, preprocessing=preprocessing, note=note)
    else:
        save_official(target, state, config)
    weights = sum(tensor.numel() for tensor in state.values())
    summary = {
        "file": str(target),
        "backbone": config.backbone.name,
        "neck": config.neck,
        "DET tokens": config.queries,
        "classes": config.classes,
        "decoder layers": config.decoder_layers,
        "weights": weights,
        "tensors": len(state),
    }
    console.table(f"{options.file} as {target}", ("", "value"), [*summary.items()])
    console.emit(summary)
    return ExitCode.DONE


def _dataset(options: EvalOptions, trained: Trained, console: Console) -> DetectionSet:
    """The images to measure on: those named, else the validation images of the detector's own run."""
    if options.data is not None:
        return open_detection(options.data, options.split, skip_bad=options.skip_bad, console=console)
    if trained.run is None:
        raise UserError("these weights are of no run, whose images could be used", options.model, "name DATA too")
    given = trained.run.options
    source = str(given.get("val") or given.get("data") or SCENES)
    skip_bad = options.skip_bad or bool(given.get("skip-bad"))
    return open_detection(source, options.split, skip_bad=skip_bad, console=console)


def _batch(text: str) -> int | None:
    """The number of `--batch`; None for dynamic."""
    if text == "dynamic":
        return None
    if not (text.isdecimal() and int(text) >= 1):
        raise UserError(f"{text!r} is no number of images", "--batch", "give dynamic, or 1 or more")
    return int(text)


def _size(given: tuple[int, ...], preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of `--size`, else of a square as large as trained."""
    if len(given) > 2 or any(side < 32 for side in given):
        raise UserError(f"{' x '.join(map(str, given))} is no size", "--size", "give height and width, at least 32")
    if not given:
        return preprocessing.size, preprocessing.size
    return given[0], given[-1]


def _words(preprocessing: Preprocessing) -> str:
    kinds = {"short": "shorter side", "stretch": "stretched to a square of", "letterbox": "fitted into a square of"}
    return f"{kinds[preprocessing.resize]} {preprocessing.size} pixels"
