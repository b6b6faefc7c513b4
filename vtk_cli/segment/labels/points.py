"""Makes clicks from full labels: what a person would have clicked who draws no masks (arXiv 2303.15062, Section 4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.data.points.clicks import Mode
from vtk_cli.data.points.coco import read_coco_points
from vtk_cli.data.points.reading import accepted
from vtk_cli.data.points.records import PointSet, Source
from vtk_cli.data.points.table import write_point_table
from vtk_cli.files import write_text
from vtk_cli.segment.labels.coco_stream import categories
from vtk_cli.segment.solov2.predictions import PointPrompt

DERIVED: tuple[Source, ...] = ("segmentation", "bbox")
"""What clicks are made from."""


def make_points(
    path: Path,
    *,
    mode: Mode,
    seed: int = 0,
    images: Path | None = None,
    skip_bad: bool = False,
    console: Console,
) -> PointSet:
    """A click for every object of a COCO file that is no crowd, derived from its mask; of a box alone, its centre.

    Points that the file has are passed over: they are made anew.

    Args:
        path: the file.
        mode: `centroid`, `random` in the mask, or the pixel `inside` that is nearest to the centroid.
        seed: of `random`.
        images: the folder of the images; None looks for it.
        skip_bad: leave wrong entries out in place of refusing them.
        console: shows progress and what was left out.

    Raises:
        UserError: it is no COCO file, or something is wrong and not to be skipped.
    """
    reading = read_coco_points(path, console, images=images, mode=mode, seed=seed, sources=DERIVED)
    return accepted(reading, skip_bad=skip_bad, console=console)


def write_points(path: Path, points: PointSet, images: Path) -> None:
    """Write clicks: CSV where the suffix of `path` is `.csv`, else COCO JSON with a `point` an annotation.

    Args:
        path: the file.
        points: the clicks.
        images: the folder that file names are relative to.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    if path.suffix.lower() == ".csv":
        write_point_table(path, points, images)
    else:
        write_text(path, json.dumps(_content(points, images)))


def prompts_of(points: PointSet) -> list[list[PointPrompt]]:
    """The clicks of each image as point-guided inference takes them, in their order."""
    return [
        [
            PointPrompt(x, y, label, image.id)
            for (x, y), label in zip(image.points.tolist(), image.labels.tolist(), strict=True)
        ]
        for image in points.images
    ]


def _content(points: PointSet, images: Path) -> dict[str, Any]:
    return {
        "images": [
            {
                "id": image.id,
                "file_name": image.file.absolute().relative_to(images.absolute()).as_posix(),
                "width": image.width,
                "height": image.height,
            }
            for image in points.images
        ],
        "annotations": [
            {
                "id": identity,
                "image_id": image.id,
                "category_id": points.classes.ids[label],
                "iscrowd": 0,
                "point": place,
                "point_from": source,
            }
            for image in points.images
            for identity, label, place, source in zip(
                image.annotation_ids.tolist(), image.labels.tolist(), image.points.tolist(), image.sources, strict=True
            )
        ],
        "categories": categories(points.classes),
    }
