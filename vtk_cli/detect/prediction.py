"""What a detector finds in any images and videos: pictures of it, JSON, YOLO's text files, cut-out objects."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.detection.results import Detections, yolo_lines
from vtk_cli.data.detection.scenes import image_scene, normalised
from vtk_cli.data.images import NAMED, BrokenImage, decode_image
from vtk_cli.data.inputs import is_video
from vtk_cli.data.video_frames import video_frames
from vtk_cli.detect.inference import Inference, host_detections, same_sized
from vtk_cli.detect.pictures import draw_detections
from vtk_cli.detect.preprocessing import Preprocessing
from vtk_cli.detect.video_file import VideoFile
from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path, name_part, write_json, write_text

JSON, LABELS, CROPS = "predictions.json", "labels", "crops"
_QUALITY = 92


@dataclass(frozen=True, eq=False)
class Shown:
    """What of all detections is shown.

    Args:
        score: the least.
        labels: of these classes alone; None for all.
        most: at most so many an image.
        masks: with masks.
    """

    score: float
    labels: Sequence[int] | None
    most: int
    masks: bool

    def of(self, found: Detections) -> Detections:
        """The detections that are shown, the best first."""
        kept = found.above(self.score, self.labels)
        part = slice(0, self.most)
        masks = None if kept.masks is None else kept.masks[part]
        return Detections(kept.image_id, kept.boxes[part], kept.scores[part], kept.labels[part], masks)


@dataclass(frozen=True)
class Wanted:
    """Which files are written besides pictures: YOLO's text, JSON, cut-out objects."""

    text: bool = False
    json: bool = False
    crops: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """What is shown of one image, or of one frame of a video.

    Args:
        file: of the image or the video.
        frame: its number; None for an image.
        size: height and width.
        detections: the best first, boxes within the image.
    """

    file: Path
    frame: int | None
    size: tuple[int, int]
    detections: Detections


@dataclass
class Predictions:
    """What was found in everything, in order, and what could not be read, each with the reason."""

    found: list[Found] = field(default_factory=list)
    broken: list[tuple[Path, str]] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A detector that looks at images of any size.

    Args:
        look: the detector.
        preprocessing: of its images.
        device: where it is.
        class_names: by label.
        category_ids: by label.
        shown: what of its detections is shown.
        batch_size: images of one size at a time.
    """

    look: Inference
    preprocessing: Preprocessing
    device: torch.device
    class_names: Sequence[str]
    category_ids: Sequence[int]
    shown: Shown
    batch_size: int

    def __call__(self, images: Sequence[Image.Image]) -> list[Detections]:
        """What is shown of upright RGB images, each by itself whatever the others are."""
        extents = [self.preprocessing.extent(image.height, image.width) for image in images]
        found: dict[int, Detections] = {}
        for indices in same_sized(extents, self.batch_size):
            scenes = [self.preprocessing.transform(image_scene(images[index])) for index in indices]
            batch, _ = self.preprocessing.collate([(normalised(scene.image), None) for scene in scenes])  # type: ignore[misc]  # no targets
            sizes = [(images[index].height, images[index].width) for index in indices]
            each = self.look(batch.to(self.device), sizes, masks=self.shown.masks)
            for index, one, size in zip(indices, each, sizes, strict=True):
                found[index] = _within(self.shown.of(host_detections(one, index)), size)
        return [found[index] for index in range(len(images))]


def predict(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    *,
    wanted: Wanted,
    every: int,
    threads: int | None,
    console: Console,
) -> Predictions:
    """Look at all files and write the pictures as they come; what cannot be read is warned of and left out.

    Args:
        predictor: the detector.
        files: images and videos.
        out: the folder to write to.
        wanted: what else is written.
        every: of a video, look at every so many-th frame.
        threads: that read images; one a core, at most 8, if None.
        console: shows the progress and hears of what is broken.

    Raises:
        UserError: nothing can be read; nothing is written then.
        JobError: the disk is full, or the detector's answers are not finite.
    """
    predictions = Predictions()
    names = _names(files)
    writer = _Writer(predictor, wanted, predictions)
    with console.progress("predicting", len(files)) as progress:
        images = [file for file in files if not is_video(file)]
        for file, image, found in _of_images(predictor, images, predictions, threads, console):
            writer.image(out / names[file], file, image, found)
            progress.advance()
        for file in files:
            if is_video(file):
                try:
                    writer.video(out / names[file], file, every, console)
                except UserError as error:
                    _refuse(predictions, file, error.what, console)
                progress.advance()
    if not predictions.found:
        named = ", ".join(f"{file} ({reason})" for file, reason in predictions.broken[:NAMED])
        raise UserError(f"none of {len(files)} files can be read: {named}", fix="give other images")
    if wanted.json:
        write_json(out / JSON, predictions_json(predictions, predictor))
    return predictions


def predictions_json(predictions: Predictions, predictor: Predictor) -> dict[str, Any]:
    """What `predictions.json` and `--json` say: boxes x1, y1, x2, y2 in pixels, masks as COCO's run lengths."""
    return {
        "images": [
            {
                "file": _shown(one.file),
                **({} if one.frame is None else {"frame": one.frame}),
                "height": one.size[0],
                "width": one.size[1],
                "objects": list(_objects(one.detections, predictor)),
            }
            for one in predictions.found
        ],
        "broken": [{"file": _shown(file), "reason": reason} for file, reason in predictions.broken],
    }


def prediction_rows(predictions: Predictions, class_names: Sequence[str]) -> list[tuple[str, str]]:
    """A row a file: its name, and how many of each class were found (in a video, in all frames that were looked at)."""
    counts: dict[Path, Counter[str]] = {}
    for one in predictions.found:
        counts.setdefault(one.file, Counter()).update(class_names[label] for label in one.detections.labels)
    return [
        (_shown(file), ", ".join(f"{count} {name}" for name, count in each.most_common()) or "nothing")
        for file, each in counts.items()
    ]


def _of_images(
    predictor: Predictor, files: Sequence[Path], predictions: Predictions, threads: int | None, console: Console
) -> Iterator[tuple[Path, Image.Image, Detections]]:
    chunk = 4 * predictor.batch_size  # enough to find images of one size among
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), chunk):
            some = files[start : start + chunk]
            good: list[tuple[Path, Image.Image]] = []
            for file, image in zip(some, pool.map(_read, some), strict=True):
                if isinstance(image, str):
                    _refuse(predictions, file, image, console)
                else:
                    good.append((file, image))
            for (file, image), found in zip(good, predictor([image for _, image in good]), strict=True):
                yield file, image, found


@dataclass(frozen=True, eq=False)
class _Writer:
    """Writes what was found as it comes, and remembers it."""

    predictor: Predictor
    wanted: Wanted
    predictions: Predictions

    def image(self, target: Path, file: Path, image: Image.Image, found: Detections) -> None:
        """Write `target`.jpg, the image with what was found drawn in."""
        picture = target.with_name(f"{target.name}.jpg")
        with atomic_path(picture) as temporary:
            draw_detections(image, found, self.predictor.class_names).save(temporary, quality=_QUALITY)
        self._parts(target, image, found)
        self.predictions.found.append(Found(file, None, (image.height, image.width), found))
        self.predictions.pictures.append(picture)

    def video(self, target: Path, file: Path, every: int, console: Console) -> None:
        """Look at a video and write `target`.mp4, the frames that were looked at with what was found drawn in.

        Raises:
            UserError: it cannot be decoded.
        """
        picture = target.with_name(f"{target.name}.mp4")
        frames = video_frames(file, every=every, console=console)
        with VideoFile(picture) as video:
            while some := list(islice(frames, self.predictor.batch_size)):
                images = [Image.fromarray(frame.pixels) for frame in some]
                for frame, image, found in zip(some, images, self.predictor(images), strict=True):
                    video.add(np.asarray(draw_detections(image, found, self.predictor.class_names)), frame.rate / every)
                    self._parts(target.with_name(f"{target.name}-{frame.index:06d}"), image, found)
                    self.predictions.found.append(Found(file, frame.index, (image.height, image.width), found))
        self.predictions.pictures.append(picture)

    def _parts(self, target: Path, image: Image.Image, found: Detections) -> None:
        """The text file and the cut-out objects of an image or a frame."""
        if self.wanted.text:
            write_text(target.parent / LABELS / f"{target.name}.txt", yolo_lines(found, *image.size))
        for number, (box, label) in enumerate(zip(found.boxes, found.labels, strict=True) if self.wanted.crops else ()):
            left, top = np.floor(box[:2]).astype(int).tolist()
            right, bottom = np.ceil(box[2:]).astype(int).tolist()
            if right > left and bottom > top:
                folder = target.parent / CROPS / _file_name(self.predictor.class_names[label])
                with atomic_path(folder / f"{target.name}-{number}.jpg") as temporary:
                    image.crop((left, top, right, bottom)).save(temporary, quality=_QUALITY)


def _objects(found: Detections, predictor: Predictor) -> Iterable[dict[str, Any]]:
    masks = found.masks or (None,) * len(found)
    for box, label, score, mask in zip(found.boxes, found.labels.tolist(), found.scores, masks, strict=True):
        runs = {} if mask is None else {"mask": {"size": [mask.height, mask.width], "counts": mask.counts.decode()}}
        yield {
            "label": label,
            "category_id": predictor.category_ids[label],
            "name": predictor.class_names[label],
            "score": float(score),
            "box": [float(value) for value in box],
            **runs,
        }


def _within(found: Detections, size: tuple[int, int]) -> Detections:
    """With boxes cut at the edge of an image of `size` (height, width)."""
    height, width = size
    boxes = np.clip(found.boxes, 0, (width, height, width, height))
    return Detections(found.image_id, boxes, found.scores, found.labels, found.masks)


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """The name of each file's pictures: its own without suffix; where two are called alike, with a number."""
    taken: set[str] = set()
    names: dict[Path, str] = {}
    for file in files:
        first, number = name_part(file.stem), 1
        name = first
        while name in taken:
            number += 1
            name = f"{first}-{number}"
        taken.add(name)
        names[file] = name
    return names


def _read(file: Path) -> Image.Image | str:
    """The image, or why it cannot be read."""
    try:
        return decode_image(file)
    except BrokenImage as error:
        return error.what


def _refuse(predictions: Predictions, file: Path, reason: str, console: Console) -> None:
    console.warn(f"{file}: {reason}; skipped")
    predictions.broken.append((file, reason))


def _file_name(text: str) -> str:
    return name_part(re.sub(r"[^\w.-]+", "-", text).strip("-.")) or "class"


def _shown(file: Path) -> str:
    """The path as UTF-8 can hold it, whatever bytes it has."""
    return str(file).encode("utf-8", "backslashreplace").decode("utf-8")
