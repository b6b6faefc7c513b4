"""The likeliest classes of any images: as rows, as CSV and JSON, and on a contact sheet."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from vtk_cli.console import Console
from vtk_cli.data.augmentation import Transform
from vtk_cli.data.image_layouts import EXTENSIONS, unlabelled_images
from vtk_cli.data.images import NAMED, BrokenImage, decode_image
from vtk_cli.data.pointed import without_points
from vtk_cli.engine.devices import Precision, autocast
from vtk_cli.errors import JobError, UserError
from vtk_cli.files import write_json, write_text
from vtk_cli.models.evaluation import normalised
from vtk_cli.models.zoo import PixelConfig
from vtk_cli.reports.contact_sheet import Tile, write_contact_sheet
from vtk_cli.reports.plain_names import spreadsheet_cell

CSV, JSON, SHEET = "predictions.csv", "predictions.json", "predictions.png"
MOST_SHOWN = 60
"""The contact sheet shows no more images than this."""


@dataclass(frozen=True)
class Guess:
    """A class that an image may show.

    Args:
        label: its number.
        name: for people.
        probability: in [0, 1]: of the softmax; with many labels an image, the class's own sigmoid.
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, best first."""

    file: Path
    guesses: tuple[Guess, ...]


@dataclass(frozen=True)
class Predictions:
    """What was found in the images, in the order they were named.

    Args:
        rows: of the images that can be read.
        broken: the others, each with the reason.
    """

    rows: tuple[Prediction, ...]
    broken: tuple[tuple[Path, str], ...]


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files that `paths` name: images as they are, folders with the images at any depth in them, each file once.

    Raises:
        UserError: no such path, no path at all, or no image in a folder.
    """
    if not paths:
        raise UserError("name images or folders of images", "IMAGES")
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = unlabelled_images(path)
            if not inside:
                raise UserError("no images in the folder", str(path), f"supported: {' '.join(EXTENSIONS)}")
            found |= dict.fromkeys(path / image.path for image in inside)
        elif path.exists():
            found[path] = None
        else:
            raise UserError("no such image or folder", str(path), "check the path")
    return list(found)


def predict(
    network: nn.Module,
    paths: Sequence[Path],
    *,
    transform: Transform,
    pixels: PixelConfig,
    class_names: Sequence[str],
    multi_label: bool = False,
    top_k: int = 5,
    device: torch.device,
    precision: Precision = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    console: Console,
) -> Predictions:
    """Name the likeliest classes of each image; one that cannot be read is warned of and left out.

    Args:
        network: on `device`, in eval mode; maps normalised images (B, 3, S, S) to logits (B, C).
        paths: images and folders, see `find_images`.
        transform: `eval_transform(...)`, a centre crop.
        pixels: mean and standard deviation that the network expects.
        class_names: C, by label.
        multi_label: whether an image may show many classes: probabilities are then each class's own.
        top_k: so many classes an image, at most C.
        device: where the network is.
        precision: of the forward pass.
        batch_size: images at a time.
        workers: threads that read images; one a core, at most 8, if None.
        console: shows the progress and hears of broken files.

    Raises:
        UserError: a path does not exist, a folder has no images, or none of the images can be read.
        JobError: the network's answers are not finite.
    """
    files = find_images(paths)
    rows: list[Prediction] = []
    broken: list[tuple[Path, str]] = []
    threads = workers or min(8, os.cpu_count() or 1)
    with console.progress("predicting", len(files)) as progress, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(files), batch_size):
            some = files[start : start + batch_size]
            read = [*pool.map(lambda file: _read(file, transform), some)]
            good = [(file, image) for file, image in zip(some, read, strict=True) if isinstance(image, Tensor)]
            if good:
                seen = normalised(torch.stack([image for _, image in good]).to(device), pixels)
                with torch.inference_mode(), autocast(device, precision):
                    logits = network(seen)
                guesses = _guesses(logits.float(), class_names, top_k, multi_label=multi_label)
                rows += [Prediction(file, one) for (file, _), one in zip(good, guesses, strict=True)]
            refused = [(file, image) for file, image in zip(some, read, strict=True) if isinstance(image, str)]
            for file, reason in refused:
                console.warn(f"{file}: {reason}; skipped")
            broken += refused
            progress.advance(len(some))
    if not rows:
        named = ", ".join(f"{file} ({reason})" for file, reason in broken[:NAMED])
        raise UserError(f"none of {len(broken)} images can be read: {named}", fix="give other images")
    return Predictions(tuple(rows), tuple(broken))


def write_predictions(folder: Path, predictions: Predictions) -> None:
    """Write `predictions.csv` (a line an image), `predictions.json` and the contact sheet `predictions.png`.

    Raises:
        JobError, UserError: the disk is full, or `folder` may not be written.
    """
    write_text(folder / CSV, _csv(predictions.rows))
    write_json(folder / JSON, predictions_json(predictions))
    write_sheet(folder / SHEET, predictions.rows)


def predictions_json(predictions: Predictions) -> dict[str, object]:
    """What `predictions.json` and `--json` say."""
    return {
        "predictions": [
            {
                "file": _shown(row.file),
                "classes": [
                    {"label": guess.label, "name": guess.name, "probability": guess.probability}
                    for guess in row.guesses
                ],
            }
            for row in predictions.rows
        ],
        "broken": [{"file": _shown(file), "reason": reason} for file, reason in predictions.broken],
    }


def prediction_table(rows: Iterable[Prediction]) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the table for people: `name (98.2 %)`, best first."""
    listed = [*rows]
    count = max(len(row.guesses) for row in listed)
    columns = ["image", *(f"top {place}" for place in range(1, count + 1))]
    cells = [[_shown(row.file), *(_percent(guess) for guess in row.guesses)] for row in listed]
    return columns, cells


def write_sheet(path: Path, rows: Sequence[Prediction]) -> None:
    """A contact sheet of up to `MOST_SHOWN` images, the best class and its probability under each, then its file."""
    tiles = [
        Tile(decode_image(row.file), f"{_percent(row.guesses[0])}\n{_shown(Path(row.file.name))}")
        for row in rows[:MOST_SHOWN]
    ]
    title = f"{MOST_SHOWN} of {len(rows)} images" if len(rows) > MOST_SHOWN else ""
    write_contact_sheet(path, tiles, title=title)


def _read(file: Path, transform: Transform) -> Tensor | str:
    """The image as (3, S, S) uint8, or why it cannot be read."""
    try:
        image: Tensor = pil_to_tensor(transform(without_points(decode_image(file))).image)
    except BrokenImage as error:
        return error.what
    return image


def _guesses(logits: Tensor, class_names: Sequence[str], top_k: int, *, multi_label: bool) -> list[tuple[Guess, ...]]:
    """The best classes of B images from their logits (B, C)."""
    if not logits.isfinite().all():
        raise JobError("the network's answers are not finite: its weights are damaged or its training diverged")
    chances = logits.sigmoid() if multi_label else logits.softmax(dim=1)
    best = chances.topk(min(top_k, chances.shape[1]), dim=1)
    return [
        tuple(Guess(label, class_names[label], chance) for label, chance in zip(labels, values, strict=True))
        for labels, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _csv(rows: Sequence[Prediction]) -> str:
    count = max(len(row.guesses) for row in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["file", *(f"{name}_{place}" for place in range(1, count + 1) for name in ("class", "probability"))]
    )
    for row in rows:
        cells = [cell for guess in row.guesses for cell in (spreadsheet_cell(guess.name), f"{guess.probability:.6f}")]
        writer.writerow([spreadsheet_cell(str(row.file)), *cells])
    return text.getvalue()


def _percent(guess: Guess) -> str:
    return f"{guess.name} ({100 * guess.probability:.1f} %)"


def _shown(file: Path) -> str:
    """A path as text that UTF-8 can hold, whatever bytes its name has."""
    return str(file).encode("utf-8", "backslashreplace").decode("utf-8")
