"""What a job starts from: fully labelled images, clicked images, and fully labelled ones to evaluate on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.coco_files import read_coco_file
from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.records import check_same_classes, require_outlines
from vtk_cli.data.embedded import open_embedded
from vtk_cli.data.points import Classes, PointImage, PointSet
from vtk_cli.files import cache_folder, content_key, make_folder
from vtk_cli.segment.labels.inputs import classes_of, open_inputs, open_strong
from vtk_cli.segment.labels.splits import write_split
from vtk_cli.segment.options import SCENES, LabelOptions, SegmentOptions

SCENES_TRAIN, SCENES_VAL, SCENES_SHARE = 400, 150, 0.1


@dataclass(frozen=True, eq=False)
class Sources:
    """Images, and the files that say what is on them.

    Args:
        strong: fully labelled.
        weak: clicked.
        val: fully labelled, to evaluate on; None where there are none.
        strong_file, weak_file: of the annotations.
    """

    strong: DetectionSet
    weak: PointSet
    val: DetectionSet | None
    strong_file: Path
    weak_file: Path

    @property
    def classes(self) -> Classes:
        """What the labels mean."""
        return classes_of(self.strong)


@dataclass(frozen=True)
class ScenesCounts:
    """How many of the embedded scenes there are to learn from and to evaluate on, and the share with masks."""

    train: int = SCENES_TRAIN
    val: int = SCENES_VAL
    share: float = SCENES_SHARE


@dataclass(frozen=True)
class _Files:
    strong: Path
    weak: Path
    val: Path | None
    images: Path | None
    val_images: Path | None


def open_sources(options: SegmentOptions, console: Console, scenes: ScenesCounts | None = None) -> Sources:
    """The images that the options name, held against one another.

    Args:
        options: of the job.
        console: told what there is and what was left out.
        scenes: how many embedded scenes there are where nothing is named.

    Raises:
        UserError: something in them is wrong, or they do not go together.
    """
    files = _files_of(options, scenes or ScenesCounts(), console)
    inputs = open_inputs(
        files.strong,
        files.weak,
        images=files.images,
        mode=options.point_mode,
        seed=options.seed,
        skip_bad=options.skip_bad,
        console=console,
    )
    strong, weak = inputs.strong, inputs.weak
    if files.val is None:
        console.warn("nothing is evaluated: name fully labelled images with --val")
        return Sources(strong, weak, None, files.strong, files.weak)
    val = open_strong(files.val, images=files.val_images, skip_bad=options.skip_bad, console=console)
    check_same_classes(strong, val)
    require_outlines(val)
    return Sources(strong, weak, val, files.strong, files.weak)


def unclicked(dataset: DetectionSet) -> PointSet:
    """Fully labelled images as clicked ones without clicks, for files of masks on them."""
    return PointSet(dataset.name, tuple(map(_unclicked, dataset.records)), classes_of(dataset))


def common_folder(images: Sequence[PointImage | ImageRecord]) -> Path:
    """The folder that all images are in, at some depth."""
    return Path(os.path.commonpath([image.file.absolute().parent for image in images]))


def label_files(options: LabelOptions, sources: Sources) -> Mapping[str, Path]:
    """The annotation files by how messages call them."""
    return {f"--strong {options.strong}": sources.strong_file, "--weak": sources.weak_file}


def _files_of(options: LabelOptions, scenes: ScenesCounts, console: Console) -> _Files:
    if not options.on_scenes:
        if options.weak is None:
            raise ValueError("the options were checked")
        return _Files(Path(options.strong), options.weak, options.val, options.images, options.val_images)
    embedded = open_embedded(SCENES, console, train=scenes.train, val=scenes.val)
    annotations = embedded.folder / "annotations"
    given = read_coco_file(annotations / "instances_train.json")
    # Its points are one choice of clicks; without them the options decide.
    bare = [{key: value for key, value in entry.items() if key != "point"} for entry in given.annotations]
    everything = replace(given, annotations=bare)
    folder = cache_folder() / "segment-scenes" / content_key([embedded.fingerprint, scenes.share, options.seed])
    make_folder(folder)
    split = write_split(everything, scenes.share, options.seed, folder)
    val, val_images = options.val, options.val_images
    if val is None:
        val = annotations / "instances_val.json"
        val_images = read_coco_file(val).images_folder
    return _Files(split.strong, split.weak, val, everything.images_folder, val_images)


def _unclicked(record: ImageRecord) -> PointImage:
    nothing = np.zeros(0, np.int64)
    return PointImage(record.file, record.id, record.width, record.height, np.zeros((0, 2)), nothing, nothing, ())
