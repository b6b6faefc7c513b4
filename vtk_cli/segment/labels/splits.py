"""Parts a fully labelled data set into strong images, whose masks are used, and weak ones, of which only clicks are.

The published splits (arXiv 2303.15062, Section 4) come as files without the draw that made them. Here the images, in
the order of their ids, are shuffled by a seed, and the first share of them is strong: splits of one seed are nested.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli.data.coco_faults import get, is_integer
from vtk_cli.data.coco_files import CocoFile
from vtk_cli.errors import UserError
from vtk_cli.files import write_text

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""The shares of strong images that were published."""
_STREAM = 0x73706C69
"""Sets these random numbers apart from others of the same seed."""


@dataclass(frozen=True)
class SplitFiles:
    """The two files of a split, and how many images each has."""

    strong: Path
    weak: Path
    strong_images: int
    weak_images: int


def image_order(image_ids: Sequence[int], seed: int) -> list[int]:
    """Image ids shuffled by a seed, whatever order they come in."""
    known = sorted(image_ids)
    order = np.random.default_rng([seed, _STREAM]).permutation(len(known))
    return [known[index] for index in order]


def stratified_order(
    image_ids: Sequence[int], classes_of: Mapping[int, Sequence[int]], seed: int, least: int
) -> tuple[list[int], int]:
    """As `image_order`, but first come images that together have `least` objects of every class, or all there are.

    They are taken greedily: the image that has most of what is still wanted, of equal ones the first by
    `image_order`.

    Args:
        image_ids: of all images.
        classes_of: of the objects of each image, one entry an object; an image without objects may be missing.
        seed: of the order.
        least: objects of a class.

    Returns:
        The order, and how many images come first.
    """
    order = image_order(image_ids, seed)
    counts = {identity: Counter(classes_of.get(identity, ())) for identity in order}
    total = sum(counts.values(), Counter[int]())
    wanted = Counter({of_class: min(least, count) for of_class, count in total.items()})
    first: list[int] = []
    left = dict.fromkeys(order)
    while +wanted:
        best = max(left, key=lambda identity: (counts[identity] & wanted).total())  # the first of equal ones
        wanted -= counts[best]
        first.append(best)
        del left[best]
    return [*first, *left], len(first)


def strong_images(order: Sequence[int], fraction: float) -> list[int]:
    """The first share of an order, rounded to whole images.

    Raises:
        UserError: the share is not in (0, 1), or there would be no strong or no weak image.
    """
    if not 0 < fraction < 1:
        raise UserError(f"a share of {fraction:g} strong images is out of range", fix="give more than 0, less than 1")
    count = round(fraction * len(order))
    if not 0 < count < len(order):
        what = f"{100 * fraction:g} % of {len(order)} images are {count} strong and {len(order) - count} weak ones"
        raise UserError(what, fix="both kinds need at least 1 image")
    return list(order[:count])


def split_file(file: CocoFile, fraction: float, seed: int, *, least: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """The strong and the weak part of an annotation file, all entries as they are.

    Args:
        file: with integer image ids.
        fraction: of strong images, in (0, 1).
        seed: of the draw.
        least: strong objects of every class, where it has as many; 0 does not look at classes.

    Raises:
        UserError: an image has no integer id, or two have the same; there would be no strong or no weak image; or
            `least` takes more images than the share.
    """
    identities = _identities(file)
    if least:
        order, needed = stratified_order(identities, _classes_of(file), seed, least)
    else:
        order, needed = image_order(identities, seed), 0
    strong = strong_images(order, fraction)
    if needed > len(strong):
        what = f"{least} objects of every class take {needed} images, but {100 * fraction:g} % are {len(strong)}"
        raise UserError(what, str(file.path), "give a larger share or fewer objects of a class")
    chosen = set(strong)
    return _part(file, lambda identity: identity in chosen), _part(file, lambda identity: identity not in chosen)


def write_split(file: CocoFile, fraction: float, seed: int, out: Path, *, least: int = 0) -> SplitFiles:
    """Write `split_file` as `NAME_10p_s.json` and `NAME_10p_w.json` into `out`, each atomically.

    Raises:
        UserError: as `split_file`.
        JobError: the disk is full.
    """
    parts = split_file(file, fraction, seed, least=least)
    paths = [out / f"{file.path.stem}_{100 * fraction:g}p_{kind}.json" for kind in ("s", "w")]
    for path, part in zip(paths, parts, strict=True):
        write_text(path, json.dumps(part))
    return SplitFiles(paths[0], paths[1], len(parts[0]["images"]), len(parts[1]["images"]))


def _identities(file: CocoFile) -> list[int]:
    identities = [get(entry, "id") for entry in file.images]
    wrong = next((number for number, identity in enumerate(identities) if not is_integer(identity)), None)
    if wrong is not None:
        raise UserError(f"image id {identities[wrong]!r} is no integer", f"{file.path}: image {wrong}")
    twice = next((identity for identity, count in Counter(identities).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"image id {twice} is used twice", str(file.path))
    return identities


def _classes_of(file: CocoFile) -> Mapping[int, Sequence[int]]:
    classes: defaultdict[int, list[int]] = defaultdict(list)
    for entry in file.annotations:
        if is_integer(get(entry, "image_id")) and is_integer(get(entry, "category_id")) and not get(entry, "iscrowd"):
            classes[entry["image_id"]].append(entry["category_id"])
    return classes


def _part(file: CocoFile, kept: Callable[[int], bool]) -> dict[str, Any]:
    return {
        "images": [entry for entry in file.images if kept(entry["id"])],
        "annotations": [
            entry for entry in file.annotations if is_integer(get(entry, "image_id")) and kept(entry["image_id"])
        ],
        "categories": file.categories,
    }
