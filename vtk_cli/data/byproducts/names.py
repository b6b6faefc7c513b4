"""Which image of a dataset a name in the byproducts means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

_NUMBER_AT_END = re.compile(r"(\d+)$")
_AMBIGUOUS = -2
UNMATCHED = -1
Split = Literal["train", "val"]
_OTHER_SPLITS: Mapping[Split, frozenset[str]] = {
    "train": frozenset({"val", "valid", "validation", "test"}),
    "val": frozenset({"train", "training"}),
}


@dataclass(frozen=True, eq=False)
class Matched:
    """The sample of each name.

    Args:
        samples: int64 (M,); `UNMATCHED` where there is none.
        unknown: names that no sample has.
        ambiguous: names that several samples share, as `1.jpg` in every class folder.
    """

    samples: npt.NDArray[np.int64]
    unknown: tuple[str, ...]
    ambiguous: tuple[str, ...]


def of_other_split(name: str, split: Split) -> bool:
    """Whether a name's leading folders, those above the last two parts, say that it is of another split.

    The last two are passed over: a class may be called train.
    """
    return bool(_OTHER_SPLITS[split] & {part.lower() for part in _path(name).split("/")[:-2]})


def match_names(names: Sequence[str], source_names: Sequence[str]) -> Matched:
    """Find each name among the samples: by its path, then by folder and file name, then by file name alone.

    Each is tried with the extension first and then without it. A name that several samples share is never guessed.
    """
    return _matched(names, source_names, _KEYS)


def match_numbers(names: Sequence[str], source_names: Sequence[str], image_ids: Sequence[int] | None) -> Matched:
    """As `match_names`, for names that may be the numbers of COCO images.

    Args:
        names: numbers or file names.
        source_names: of the samples.
        image_ids: the samples' ids in their COCO file; without them the number at the end of a file's stem is its id,
            as in `COCO_train2014_000000000009.jpg`.
    """
    ids = (
        [_number(_stem(name)) for name in source_names] if image_ids is None else [str(number) for number in image_ids]
    )
    of_id: dict[str, int] = {}
    for sample, identity in enumerate(ids):
        if identity:
            of_id[identity] = _AMBIGUOUS if identity in of_id else sample
    by_name = _matched(names, source_names, _KEYS)
    numbered = np.array([of_id.get(name, UNMATCHED) if name.isdecimal() else UNMATCHED for name in names], np.int64)
    return _sorted_out(names, np.where(numbered != UNMATCHED, numbered, by_name.samples))


def _matched(names: Sequence[str], source_names: Sequence[str], keys: Sequence[Callable[[str], str]]) -> Matched:
    found = np.full(len(names), UNMATCHED, np.int64)
    for key in keys:
        open_names = np.flatnonzero(found < 0)
        if not len(open_names):
            break
        known: dict[str, int] = {}
        for sample, name in enumerate(source_names):
            word = key(name)
            known[word] = _AMBIGUOUS if word in known else sample
        for index in open_names.tolist():
            sample = known.get(key(names[index]), UNMATCHED)
            if sample != UNMATCHED:
                found[index] = sample
    return _sorted_out(names, found)


def _sorted_out(names: Sequence[str], found: npt.NDArray[np.int64]) -> Matched:
    unknown = tuple(names[index] for index in np.flatnonzero(found == UNMATCHED).tolist())
    ambiguous = tuple(names[index] for index in np.flatnonzero(found == _AMBIGUOUS).tolist())
    return Matched(np.maximum(found, UNMATCHED), unknown, ambiguous)


def _path(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./").lstrip("/")


def _without_extension(name: str) -> str:
    head, dot, tail = name.rpartition(".")
    return head if dot and head and "/" not in tail else name


def _last_two(name: str) -> str:
    return "/".join(_path(name).split("/")[-2:])


def _file(name: str) -> str:
    return _path(name).rpartition("/")[2]


def _stem(name: str) -> str:
    return _without_extension(_file(name))


def _number(stem: str) -> str:
    found = _NUMBER_AT_END.search(stem)
    return (found.group(1).lstrip("0") or "0") if found and found.group(1).isascii() else ""


_KEYS: tuple[Callable[[str], str], ...] = (
    _path,
    lambda name: _without_extension(_path(name)),
    _last_two,
    lambda name: _without_extension(_last_two(name)),
    _file,
    _stem,
)
