"""Classification from what has a name: the embedded `digits`, and the datasets of `timm.data.create_dataset`."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data import ImageDataset, create_dataset

from vtk_cli.console import Console
from vtk_cli.data.classification_source import ImageSource, Splits
from vtk_cli.data.digits import DigitsSplit, load_digits_split
from vtk_cli.data.images import DECODE_ERRORS, FORMATS, BrokenImage, upright_rgb
from vtk_cli.errors import UserError
from vtk_cli.files import cache_folder, lock

PREFIXES = ("torch", "hfds", "hfids", "wds", "tfds")
"""What the names that timm knows begin with."""
STREAMS = ("hfids", "wds", "tfds")
"""Those that are read from the front only."""


class _Indexed(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Reads images by number from uint8 (N, 3, H, W) in memory."""

    images: npt.NDArray[np.uint8]

    def __call__(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        return Image.fromarray(np.ascontiguousarray(self.images[index].transpose(1, 2, 0)))


@dataclass(frozen=True, eq=False)
class DatasetReader:
    """Reads images by number from a dataset whose samples are (image, label, ...).

    Of a dataset of timm's own, its reader is asked: the dataset would put the next image, of another label, in the
    place of one that is broken.
    """

    dataset: _Indexed
    names: Sequence[str]

    def __call__(self, index: int) -> Image.Image:
        """Image `index`, upright RGB; raises `BrokenImage`."""
        try:
            if isinstance(self.dataset, ImageDataset):
                with self.dataset.reader[index][0] as stream, Image.open(stream, formats=FORMATS) as opened:
                    opened.load()
                    return upright_rgb(opened)
            return upright_rgb(self.dataset[index][0])
        except DECODE_ERRORS as error:
            raise BrokenImage(str(error) or type(error).__name__, self.names[index]) from error


def open_digits() -> Splits:
    """The embedded digits, in memory: 1,437 images to train on and 360 to evaluate on, 32x32."""
    return Splits(_digits(load_digits_split("train")), _digits(load_digits_split("val")))


def is_timm_name(name: str) -> bool:
    """Whether a name is one of `timm.data.create_dataset`, e.g. `torch/cifar10`."""
    prefix, slash, rest = name.partition("/")
    return bool(slash and rest) and prefix.lower() in PREFIXES


def open_timm(name: str, val: str | None, console: Console) -> Splits:
    """A dataset of timm's, downloaded into the cache where it is not there yet.

    Args:
        name: e.g. `torch/cifar10`, `hfds/uoft-cs/cifar10`.
        val: the split to evaluate on; `validation`, else `test`, where None.
        console: shows the reading of the labels; told when there is no split to evaluate on.

    Raises:
        UserError: timm knows no such dataset, it cannot be got, or its samples cannot be had by number.
    """
    if name.partition("/")[0].lower() in STREAMS:
        raise UserError(
            f"{name} is a stream: its samples cannot be had by number, which exact resuming needs",
            fix="give a map-style dataset (torch/..., hfds/...) or a folder of images",
        )
    train = _source(name, "train", console)
    if val is not None:
        return Splits(train, _same_classes(train, _source(name, val, console)))
    try:
        found = _source(name, "validation", console)
    except UserError:
        try:
            found = _source(name, "test", console)
        except UserError as error:
            console.warn(f"{name}: no split to evaluate on ({error.what}); trained without evaluation")
            return Splits(train, None)
    return Splits(train, _same_classes(train, found))


def _digits(split: DigitsSplit) -> ImageSource:
    names = split.sample_ids("digits")
    return ImageSource("digits", tuple("0123456789"), torch.from_numpy(split.labels), ArrayReader(split.images), names)


def _source(name: str, split: str, console: Console) -> ImageSource:
    dataset = _created(name, split)
    targets = torch.as_tensor(_targets(dataset, f"{name} ({split})", console))
    if targets.ndim != 1 or targets.is_floating_point() or not len(targets) or int(targets.min()) < 0:
        raise UserError(f"the {split} split of {name} has no class label for each image")
    class_names = _class_names(dataset, int(targets.max()) + 1)
    names = tuple(f"{name.partition('/')[2]}/{split}/{index:06d}" for index in range(len(targets)))
    return ImageSource(f"{name} ({split})", class_names, targets.long(), DatasetReader(dataset, names), names)


def _created(name: str, split: str) -> _Indexed:
    root = cache_folder() / "datasets"
    download = {"download": True} if name.lower().startswith("torch/") else {}
    said = io.StringIO()
    try:
        # One process downloads, the others wait; and stdout is for results.
        with lock(root / "datasets.lock"), contextlib.redirect_stdout(said):
            dataset: Any = create_dataset(name, root=str(root), split=split, **download)
    except ImportError as error:
        raise UserError(f"{name} needs the package {error.name}", fix=f"pip install {error.name}") from error
    except Exception as error:  # every library behind timm has exceptions of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"the {split} split of {name} cannot be opened: {reason[:300]}",
            fix=f"where there is no network, put the files into {root} first",
        ) from error
    finally:
        sys.stderr.write(said.getvalue())
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise UserError(f"the samples of {name} cannot be had by number", fix="give a map-style dataset or a folder")
    found: _Indexed = dataset
    return found


def _targets(dataset: Any, name: str, console: Console) -> list[int]:
    """The label of every sample, without decoding the images where the dataset can tell."""
    for attribute in ("targets", "_labels", "labels"):
        listed = getattr(dataset, attribute, None)
        if listed is not None and len(listed) == len(dataset):
            return torch.as_tensor(listed).tolist()
    labels: list[int] = []
    with console.progress(f"reading the labels of {name}", len(dataset)) as progress:
        for label in _one_by_one(dataset):
            labels.append(int(label))
            progress.advance()
    return labels


def _one_by_one(dataset: Any) -> Iterator[Any]:
    if not isinstance(dataset, ImageDataset):
        yield from (dataset[index][1] for index in range(len(dataset)))
    elif hasattr(dataset.reader, "iter_targets"):
        yield from dataset.reader.iter_targets()
    else:
        for index in range(len(dataset)):
            stream, label, *_ = dataset.reader[index]
            stream.close()
            yield label


def _class_names(dataset: Any, at_least: int) -> tuple[str, ...]:
    """The dataset's own, else the numbers."""
    listed = getattr(dataset, "classes", None)
    if not listed:
        mapping = getattr(getattr(dataset, "reader", None), "class_to_idx", None) or {}
        listed = [str(name) for name, _ in sorted(mapping.items(), key=lambda entry: int(entry[1]))]
    names = tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in listed)
    return names if len(names) >= at_least else tuple(str(label) for label in range(at_least))


def _same_classes(train: ImageSource, val: ImageSource) -> ImageSource:
    if int(val.targets.max()) >= len(train.class_names):
        raise UserError(
            f"{val.name} has labels up to {int(val.targets.max())}, {train.name} has {len(train.class_names)} classes"
        )
    return ImageSource(val.name, train.class_names, val.targets, val.read, val.names)
