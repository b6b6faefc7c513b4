"""Where pseudo labels deserve a person's look: objects without a click, and images worth drawing masks on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vtk_cli.data.detection.outlines import Bools, RunLengths, outline_of_mask
from vtk_cli.data.points.records import PointImage
from vtk_cli.segment.pseudo.labels import PseudoLabel, UnresolvedClick
from vtk_cli.segment.solov2.predictions import Instances

Order = Literal["score", "iou", "flags"]
CONFIDENT = 0.5


@dataclass(frozen=True, eq=False)
class MissingClick:
    """An object that the teacher sees without being asked, and nobody clicked.

    Args:
        image_id: of the data file.
        label: contiguous from 0.
        score: of the detection.
        mask: at the size of the image.
    """

    image_id: int
    label: int
    score: float
    mask: RunLengths


def missing_clicks(image: PointImage, found: Instances, least: float = CONFIDENT) -> Iterator[MissingClick]:
    """The confident detections of an image that no click, of whatever class, lies in.

    Args:
        image: with its clicks.
        found: what normal inference finds on it, without the clicks.
        least: the score above which a detection counts.
    """
    columns, rows = image.points.round().astype(int).T
    for score, label, mask in zip(found.scores.tolist(), found.labels.tolist(), found.masks, strict=True):
        pixels: Bools = mask.cpu().numpy().astype(np.bool_)
        if score > least and pixels.any() and not pixels[rows, columns].any():
            yield MissingClick(image.id, label, score, outline_of_mask(pixels))


def worst_first(labels: Iterable[PseudoLabel], order: Order) -> list[PseudoLabel]:
    """Labels by how little they are to be trusted; equal ones stay as they are.

    Args:
        labels: any.
        order: `score`: the lowest first. `iou`: first those that refinement changed most; not refined ones last.
            `flags`: first those with most flags.
    """
    if order == "score":
        return sorted(labels, key=lambda label: label.score)
    if order == "iou":
        return sorted(labels, key=_agreement)
    return sorted(labels, key=lambda label: -len(label.flags))


def images_to_label(labels: Iterable[PseudoLabel], unresolved: Sequence[UnresolvedClick]) -> list[tuple[int, float]]:
    """The clicked images with how well their clicks went, in [0, 1], the worst first: draw masks there next.

    A click counts its score times the agreement of its rough and refined mask, or 0 where it got no mask; an image is
    the mean of its clicks.
    """
    values: defaultdict[int, list[float]] = defaultdict(list)
    for label in labels:
        values[label.image_id].append(label.score * _agreement(label))
    for click in unresolved:
        values[click.image_id].append(0.0)
    means = [(image, sum(of_image) / len(of_image)) for image, of_image in values.items()]
    return sorted(means, key=lambda item: (item[1], item[0]))


def _agreement(label: PseudoLabel) -> float:
    return 1.0 if label.iou_rough_refined is None else label.iou_rough_refined
