"""What is done with labels alone: clicks from masks, splits, imports, and what labels cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.data.coco_faults import get
from vtk_cli.data.coco_files import read_coco_file
from vtk_cli.data.points.importing import import_marks, read_marks
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import make_folder, require_folder
from vtk_cli.segment.command import BudgetOptions, ImportOptions, PointsOptions, SplitOptions
from vtk_cli.segment.labels.budget import COCO, Contents, Timings, costs, fraction_of, hours_of, plans
from vtk_cli.segment.labels.points import make_points, write_points
from vtk_cli.segment.labels.sources import common_folder
from vtk_cli.segment.labels.splits import write_split


def points_from_masks(options: PointsOptions, console: Console) -> ExitCode:
    """Write a click for every object of a data set."""
    path = _file(options.data)
    out = options.out or path.with_name(f"{path.stem}_{options.mode}.json")
    if out.suffix.lower() not in {".json", ".csv"}:
        raise UserError("is neither .json nor .csv", f"--out {out}", "name a file with one of these")
    make_folder(out.parent)
    points = make_points(
        path,
        mode=options.mode,
        seed=options.seed,
        images=options.images,
        skip_bad=options.skip_bad,
        console=console,
    )
    write_points(out, points, options.images or common_folder(points.images))
    counts = {str(source): count for source, count in points.sources.items()}
    console.text(f"{points.clicks:,} clicks on {len(points):,} images: {out}")
    console.emit({"file": str(out), "images": len(points), "clicks": points.clicks, "sources": counts})
    return ExitCode.DONE


def split_data(options: SplitOptions, console: Console) -> ExitCode:
    """Write the fully labelled and the clicked part of a data set."""
    path = _file(options.data)
    out = options.out or path.parent
    require_folder(out)
    make_folder(out)
    split = write_split(read_coco_file(path), options.fraction, options.seed, out, least=options.stratify)
    console.text(f"{split.strong_images:,} fully labelled images: {split.strong}")
    console.text(f"{split.weak_images:,} images to click on: {split.weak}")
    console.emit(
        {
            "strong": str(split.strong),
            "weak": str(split.weak),
            "strong_images": split.strong_images,
            "weak_images": split.weak_images,
        }
    )
    return ExitCode.DONE


def plan_budget(options: BudgetOptions, console: Console) -> ExitCode:
    """Show what labels cost, and what some hours suffice for."""
    timings = Timings(options.t_mask, options.t_box, options.t_tag, options.t_first, options.t_more)
    contents = _contents(options)
    each = costs(contents, timings)
    rows = [
        ("class names", f"{each.tags:.1f}", f"{contents.images * each.tags / 3600:,.1f}"),
        ("clicks", f"{each.points:.1f}", f"{hours_of(0, contents, timings):,.1f}"),
        ("boxes", f"{each.boxes:.1f}", f"{contents.images * each.boxes / 3600:,.1f}"),
        ("masks", f"{each.masks:.1f}", f"{hours_of(1, contents, timings):,.1f}"),
    ]
    about = f"{contents.images:,} images, {contents.objects:.2f} objects of {contents.present:.2f} classes an image"
    console.table(f"{about}, {contents.classes} classes", ("every image with", "s/image", "hours"), rows)
    found: dict[str, Any] = {
        "images": contents.images,
        "seconds": {"tags": each.tags, "points": each.points, "boxes": each.boxes, "masks": each.masks},
        "hours": {"points": hours_of(0, contents, timings), "masks": hours_of(1, contents, timings)},
    }
    if options.hours is not None:
        possible = plans(options.hours, contents, timings)
        shown = [
            (f"{100 * plan.fraction:.1f} %", f"{plan.masks:,}", f"{plan.points:,}", f"{plan.unlabelled:,}")
            for plan in possible
        ]
        console.table(f"In {options.hours:g} hours", ("masks", "images", "clicked", "unlabelled"), shown)
        found["plans"] = [vars(plan) for plan in possible]
        if options.hours >= hours_of(0, contents, timings) and each.masks > each.points:
            share = fraction_of(options.hours, contents, timings)
            console.text(f"Every image is labelled where {100 * share:.1f} % have masks and the others clicks.")
            found["fraction"] = share
    console.emit(found)
    return ExitCode.DONE


def import_data(options: ImportOptions, console: Console) -> ExitCode:
    """Write what a labelling tool exported as the two files that a run starts from."""
    if options.data is None:
        raise UserError("import what?", "PATH", "name the file or folder that a labelling tool exported")
    marked = read_marks(options.data, console, options.images)
    require_folder(options.out)
    make_folder(options.out)
    found = import_marks(marked, options.out, console, mixed=options.mixed, skip_bad=options.skip_bad)
    rows = [
        ("fully labelled images", f"{found.strong_images:,} with {found.masks:,} masks", str(found.strong or "-")),
        ("clicked images", f"{found.weak_images:,} with {found.clicks:,} objects", str(found.weak or "-")),
    ]
    console.table(marked.name, ("", "how many", "file"), rows)
    console.text(f"Their images: --images {found.images_folder}")
    console.emit({name: str(value) if isinstance(value, Path) else value for name, value in vars(found).items()})
    return ExitCode.DONE


def _file(path: Path | None) -> Path:
    if path is None:
        raise UserError("which data set?", "JSON", "name a COCO file with masks")
    if not path.is_file():
        raise UserError("no such file", str(path), "name a COCO file with masks")
    return path


def _contents(options: BudgetOptions) -> Contents:
    """What there is to label: as in a COCO file, or in COCO itself."""
    if options.data is None:
        return Contents(options.number or COCO.images, COCO.objects, COCO.present, COCO.classes)
    file = read_coco_file(_file(options.data))
    pairs = [
        (json.dumps(get(entry, "image_id")), json.dumps(get(entry, "category_id")))
        for entry in file.annotations
        if not get(entry, "iscrowd")
    ]
    if not pairs or not file.images:
        raise UserError("shows no labelled image", str(options.data), "name a file with some objects")
    images = len(file.images)
    classes = max(len(file.categories), len({category for _, category in pairs}))
    return Contents(options.number or images, len(pairs) / images, len(set(pairs)) / images, classes)
