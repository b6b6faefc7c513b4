"""What is done with a run and its networks: one stage, `eval`, `predict`, `export`, `preview`, each top to bottom."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from vtk_cli.console import Console
from vtk_cli.data.detection.outlines import outline_mask
from vtk_cli.data.detection.records import require_outlines
from vtk_cli.data.detection.results import results_of, write_results, yolo_polygons
from vtk_cli.data.images import BrokenImage, decode_image
from vtk_cli.data.inputs import find_inputs, is_video
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.processes.distributed import join_world
from vtk_cli.engine.run_folder import LOCK
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import atomic_path, lock, make_folder, name_part, require_folder, write_json, write_text
from vtk_cli.options import RUN_CONFIG, read_config
from vtk_cli.segment.command import EvalOptions, ExportOptions, PredictOptions, PreviewOptions, StageOptions
from vtk_cli.segment.context import Job
from vtk_cli.segment.job import forget, make
from vtk_cli.segment.labels.inputs import classes_of, open_strong
from vtk_cli.segment.labels.points import prompts_of
from vtk_cli.segment.labels.sources import common_folder, open_sources
from vtk_cli.segment.looking import (
    PUBLISHED_POINTS,
    clicked_centroids,
    detections_of,
    found_at_clicks,
    found_by_itself,
    found_of_classes,
    normal_settings,
)
from vtk_cli.segment.options import SegmentOptions, StageName
from vtk_cli.segment.pseudo.doubts import missing_clicks
from vtk_cli.segment.pseudo.labelling import PSEUDO, UNRESOLVED
from vtk_cli.segment.pseudo.labels import read_pseudo_labels, read_unresolved, write_pseudo_labels
from vtk_cli.segment.pseudo.preview import Preview, export_labelme, write_preview
from vtk_cli.segment.refine.stage import REFINED
from vtk_cli.segment.report import CLASS_COLUMNS, class_rows, draw_found, number_rows, write_evaluation
from vtk_cli.segment.rounds import round_named
from vtk_cli.segment.solov2.exporting import export_segmenter
from vtk_cli.segment.trained import Trained, open_trained
from vtk_cli.segment.training.samples import seen_image
from vtk_cli.segment.training.teaching import Measured, compared


def make_stage(stage: StageName, options: StageOptions, console: Console) -> ExitCode:
    """Make one stage of a run with the options of the run."""
    folder = _run_folder(options.run)
    settings = run_options(folder)
    settings = replace(settings, device=options.device, parallel=options.parallel or settings.parallel)
    if stage in {"rough", "refine"} and not settings.refine:
        raise UserError("the run goes without refinement", str(folder), "make another with --refine")
    here, later = round_named(folder, settings, options.round)
    if stage not in here.stages:
        raise UserError(f"has no stage {stage!r}", f"--round {here.name}", f"it has {', '.join(here.stages)}")
    with join_world(options.device, settings.parallel) as world, ExitStack() as held:
        face = console if world.is_main else Console(quiet=True)
        job = Job(settings, open_sources(settings, face), here, world, face)
        world.on_main(lambda: _take(folder, held))
        if options.redo:
            world.on_main(lambda: forget(here, stage, later))
        make(job, stage)
        if world.is_main:
            console.text(f"{here.title(stage)}: {job.of(stage)}")
            console.emit({"stage": stage, "folder": str(job.of(stage))})
    return ExitCode.DONE


def run_options(folder: Path) -> SegmentOptions:
    """The options that a run was made with.

    Raises:
        UserError: the folder holds no run of `vtk segment run`.
    """
    if not (folder / RUN_CONFIG).is_file():
        raise UserError("holds no run", str(folder), "make one with vtk segment run --out, perhaps --until teacher")
    values = read_config(folder / RUN_CONFIG, SegmentOptions, "segment run")
    return SegmentOptions(**{name: _typed(name, value) for name, value in values.items()})


def evaluate_model(options: EvalOptions, console: Console) -> ExitCode:
    """Measure a trained network on fully labelled images."""
    if not options.model or options.data is None:
        raise UserError("which network, and on which images?", "MODEL JSON", "name a run or weights, and COCO JSON")
    if options.out is not None:
        require_folder(options.out)
    with join_world(options.device) as world:
        face = console if world.is_main else Console(quiet=True)
        trained = open_trained(options.model, options.which, options.size, best=options.best)
        dataset = open_strong(options.data, images=options.images, skip_bad=options.skip_bad, console=face)
        require_outlines(dataset)
        trained.require_classes(classes_of(dataset), dataset.name)
        looker = trained.looker(world.device, options.precision, worker_count(options.workers))
        normal = normal_settings(teacher=trained.role == "teacher")
        if options.prompt == "point":
            points = clicked_centroids(dataset)
            prompts = prompts_of(points)
            found = found_at_clicks(looker, points, prompts, PUBLISHED_POINTS, world=world, console=face)
        elif options.prompt == "classes":
            found = found_of_classes(looker, dataset, normal, world=world, console=face)
        else:
            found = found_by_itself(looker, dataset, normal, world=world, console=face)
        measured = compared(dataset, found, world)
        world.on_main(lambda: _tell(options, measured, str(trained.saved.path), face))
    return ExitCode.DONE


def _tell(options: EvalOptions, measured: Measured, model: str, console: Console) -> None:
    """Show and write how good a network is."""
    dataset = measured.dataset
    told = {"none": "by itself", "point": "at a click on every object", "classes": "told the classes of each image"}
    title = f"{model} on {dataset.name}, {told[options.prompt]}"
    console.table(title, ("", "%"), number_rows(measured))
    console.table("Classes, in %", CLASS_COLUMNS, class_rows(measured))
    name = {"none": "ap", "point": "pseudo_ap", "classes": "ap_given_classes"}[options.prompt]
    summary = {"model": model, "data": dataset.name, name: measured.numbers["AP"]}
    summary |= measured.masks.to_json()
    if options.out is not None:
        make_folder(options.out)
        write_results(options.out / "results.json", measured.detections, dataset.category_ids)
        write_json(options.out / "evaluation.json", summary)
        about = f"{len(dataset):,} images with {dataset.objects:,} objects"
        console.text(f"Look at {write_evaluation(options.out, measured, title, about)}")
    console.emit(summary)


def predict_images(options: PredictOptions, console: Console) -> ExitCode:
    """Find objects in images; what cannot be read is told and passed over."""
    files = [file for file in find_inputs(options.images) if not is_video(file)]
    if not files:
        raise UserError("no images among these", "IMAGES", "videos are not segmented; name images")
    require_folder(options.out)
    device = resolve_device(options.device)
    trained = open_trained(options.model, options.which, options.size, best=options.best)
    looker = trained.looker(device, options.precision)
    settings = normal_settings(teacher=trained.role == "teacher")
    classes, multiple = trained.saved.classes, trained.network.config.padding_multiple
    make_folder(options.out / "labels" if options.save_txt else options.out)
    rows: list[tuple[object, ...]] = []
    entries: list[dict[str, Any]] = []
    broken: list[str] = []
    with console.progress("segmenting", len(files)) as progress:
        for number, file in enumerate(files, 1):
            progress.advance(1)
            try:
                image = decode_image(file)
            except BrokenImage as error:
                broken.append(str(error))
                continue
            seen = seen_image(pil_to_tensor(image), trained.resize, multiple)
            found = detections_of(number, looker.instances(seen, looker.outputs(seen), settings)).above(options.conf)
            name = f"{number:04d}-{name_part(file.stem)}"
            with atomic_path(options.out / f"{name}.jpg") as temporary:
                draw_found(image, found, classes.names).save(temporary, format="JPEG", quality=92)
            for index, mask in enumerate(found.masks or () if options.save_masks else ()):
                pixels = outline_mask(mask, mask.height, mask.width).astype(np.uint8) * 255
                label = name_part(classes.names[int(found.labels[index])])
                with atomic_path(options.out / f"{name}-{index + 1}-{label}.png") as temporary:
                    Image.fromarray(pixels).save(temporary, format="PNG")
            if options.save_txt:
                write_text(options.out / "labels" / f"{name}.txt", yolo_polygons(found, *image.size))
            entries += [{"file": str(file), **entry} for entry in results_of([found], classes.ids)]
            rows.append((file.name, len(found)))
    for message in broken:
        console.warn(message)
    if not rows:
        raise UserError(f"none of {len(broken)} images can be read: {broken[0]}", fix="give other images")
    write_json(options.out / "predictions.json", entries)
    console.table(f"{trained.saved.path} finds", ("file", "objects"), rows[:20])
    console.text(f"Look at {options.out}; masks in COCO's format: {options.out / 'predictions.json'}")
    console.emit({"images": len(rows), "objects": len(entries), "broken": broken, "folder": str(options.out)})
    return ExitCode.DONE


def export_model(options: ExportOptions, console: Console) -> ExitCode:
    """Write a trained student as ONNX, read it back and compare."""
    if not options.model:
        raise UserError("which network?", "MODEL", "name a run folder or a weight file")
    trained = open_trained(options.model, best=options.best)
    path = trained.saved.path
    if trained.role == "teacher":
        raise UserError("a teacher suppresses masks one by one, which ONNX cannot say", str(path), "name a student")
    folder = options.out or path.parent
    require_folder(folder)
    export = export_segmenter(
        trained.network,
        folder / f"{path.stem}.onnx",
        size=_padded(options.size, trained),
        short=trained.resize.short,
        batch=options.batch,
        classes=trained.saved.classes,
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
            ("instances that are the same", f"{export.same_answers:.1%}"),
        ],
    )
    console.emit(export.summary())
    return ExitCode.DONE


def preview_run(options: PreviewOptions, console: Console) -> ExitCode:
    """Write contact sheets and a page of the pseudo labels of a run, refined where they are."""
    folder = _run_folder(options.run)
    settings = run_options(folder)
    here, _ = round_named(folder, settings, options.round)
    rough_file, refined_file = here.folder / "pseudo" / PSEUDO, here.folder / "merge" / REFINED
    if not rough_file.is_file():
        fix = f"make them with vtk segment run --resume {folder}"
        raise UserError("has no pseudo labels yet", str(here.folder), fix)
    sources = open_sources(settings, console)
    rough = list(read_pseudo_labels(rough_file, sources.classes))
    is_refined = refined_file.is_file() and settings.refine
    labels = list(read_pseudo_labels(refined_file, sources.classes)) if is_refined else rough
    missing = []
    if options.missing:
        looker = open_trained(here.labeller).looker(resolve_device(options.device), settings.precision)
        normal = normal_settings(teacher=not here.name)
        with console.progress("looking for objects without a click", len(sources.weak)) as progress:
            for seen, outputs in looker.seen(sources.weak.images):
                found = looker.instances(seen, outputs, normal)
                missing += list(missing_clicks(sources.weak.images[seen.index], found))
                progress.advance(1)
    preview = Preview(
        sources.weak,
        labels,
        rough if is_refined else (),
        read_unresolved(here.folder / "pseudo" / UNRESOLVED, sources.classes),
        missing,
    )
    out = options.out or here.folder / "preview"
    require_folder(out)
    make_folder(out)
    page = write_preview(out, preview, order=options.order, count=options.count)
    if options.export == "labelme":
        console.text(f"{export_labelme(out / 'labelme', preview):,} LabelMe files: {out / 'labelme'}")
    elif options.export == "coco":
        write_pseudo_labels(out / "pseudo.json", labels, sources.weak, common_folder(sources.weak.images))
        console.text(f"COCO: {out / 'pseudo.json'}")
    console.text(f"Look at {page}")
    console.emit(
        {
            "page": str(page),
            "labels": len(labels),
            "unresolved": len(preview.unresolved),
            "missing": len(missing),
            "refined": is_refined,
        }
    )
    return ExitCode.DONE


def _take(folder: Path, held: ExitStack) -> None:
    """Keep other processes than those of this job away from a run, until `held` ends."""
    held.enter_context(lock(folder / LOCK, wait=False, busy="this run folder is in use by another process"))


def _padded(given: tuple[int, ...], trained: Trained) -> tuple[int, int]:
    """Height and width of `--size`, else of the square that holds an image of the trained size."""
    multiple = trained.network.config.padding_multiple
    if len(given) > 2 or any(side < multiple for side in given):
        what = f"{' x '.join(map(str, given))} is no size"
        raise UserError(what, "--size", f"give height and width, multiples of {multiple}")
    if not given:
        side = -(-trained.resize.short // multiple) * multiple
        return side, side
    return given[0], given[-1]


def _run_folder(path: Path | None) -> Path:
    if path is None:
        raise UserError("which run?", "RUN", "name the folder of a run of vtk segment run")
    if not path.is_dir():
        raise UserError("no such folder", str(path), "name the folder of a run of vtk segment run")
    return path


def _typed(name: str, value: Any) -> Any:
    """A value of TOML as the field has it."""
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if name in {"weak", "val", "images", "val_images", "out"} else value
