"""What people call the parts of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from vtk_cli.data.detection.records import Split

T = TypeVar("T")
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "minival"),
    "test": ("test", "testing"),
}


def split_called(name: str) -> Split | None:
    """The split of a name such as `train2017`, `valid` or `val-1`; None where it says none."""
    stem = name.lower().rstrip("0123456789_-")
    return next((split for split, names in NAMES.items() if stem in names), None)


def of_split(candidates: Iterable[T], split: Split, name_of: Callable[[T], str]) -> list[T]:
    """Those of `candidates` whose name says `split`."""
    return [candidate for candidate in candidates if split_called(name_of(candidate)) == split]
