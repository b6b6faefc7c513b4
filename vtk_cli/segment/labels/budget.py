"""What labels cost: hours to images with masks and images with clicks, and back.

An annotator first says of every class whether it is there, then marks the objects. The seconds where none are given: a
mask 79.2 and a box 7, as arXiv 2104.06404 quotes them of COCO; a class 1, the first click on a class 2.4 and a further
one 0.9 (arXiv 1506.02106). Measure your own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vtk_cli.errors import UserError

FRACTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
"""The shares of images with masks that a plan shows."""
HOUR = 3600.0


@dataclass(frozen=True)
class Timings:
    """Seconds of an annotator, none below 0.

    Args:
        mask, box: to draw one.
        tag: to say whether a class is there.
        first_click, next_click: on the first object of a class in an image, and on each further one.
    """

    mask: float = 79.2
    box: float = 7.0
    tag: float = 1.0
    first_click: float = 2.4
    next_click: float = 0.9


@dataclass(frozen=True)
class Contents:
    """What there is to label.

    Args:
        images: how many.
        objects: in an image, on average.
        present: classes that an image shows, on average; at most `objects` and `classes`.
        classes: in all.
    """

    images: int
    objects: float
    present: float
    classes: int

    def __post_init__(self) -> None:
        if self.images < 1 or self.classes < 1 or not 0 <= self.present <= min(self.objects, self.classes):
            what = f"{self.images} images with {self.objects:g} objects of {self.present:g} of {self.classes} classes"
            raise UserError(what, fix="give at least 1 image and class, and no more classes an image than objects")


COCO = Contents(118_287, 7.185, 2.9, 80)
"""COCO's train2017."""


@dataclass(frozen=True)
class Costs:
    """Seconds an image, by what is marked on it."""

    tags: float
    points: float
    boxes: float
    masks: float


@dataclass(frozen=True)
class Plan:
    """Labels within some hours.

    Args:
        fraction: of the images, those with masks.
        masks, points: how many images have masks, and how many clicks alone.
        unlabelled: how many have neither.
        hours: what this takes.
    """

    fraction: float
    masks: int
    points: int
    unlabelled: int
    hours: float


def costs(contents: Contents, timings: Timings) -> Costs:
    """Seconds an image: its absent classes are denied, then each object is marked."""
    absent = (contents.classes - contents.present) * timings.tag
    clicks = contents.present * timings.first_click + (contents.objects - contents.present) * timings.next_click
    return Costs(
        tags=contents.classes * timings.tag,
        points=absent + clicks,
        boxes=absent + contents.objects * timings.box,
        masks=absent + contents.objects * timings.mask,
    )


def hours_of(fraction: float, contents: Contents, timings: Timings) -> float:
    """The hours for masks on a share of the images, in [0, 1], and clicks on the others."""
    of_image = costs(contents, timings)
    return contents.images * (fraction * of_image.masks + (1 - fraction) * of_image.points) / HOUR


def fraction_of(hours: float, contents: Contents, timings: Timings) -> float:
    """The share of images that may have masks where all others have clicks; the inverse of `hours_of`.

    Raises:
        UserError: the hours do not even suffice for a click on every object, or masks do not cost more than clicks.
    """
    of_image = costs(contents, timings)
    if of_image.masks <= of_image.points:
        raise UserError("masks that cost no more than clicks leave nothing to plan", fix="draw masks everywhere")
    fraction = (hours * HOUR / contents.images - of_image.points) / (of_image.masks - of_image.points)
    if fraction < -1e-12:
        least = hours_of(0, contents, timings)
        what = f"{hours:g} hours do not suffice for a click on every object, which takes {least:.1f}"
        raise UserError(what, "--hours", "the plan shows how many images they suffice for")
    return min(1.0, max(0.0, fraction))


def plans(hours: float, contents: Contents, timings: Timings, fractions: Sequence[float] = FRACTIONS) -> list[Plan]:
    """What the hours suffice for: masks on each share of the images, as far as they go, then clicks on the others.

    Shares that the hours do not suffice for are left out, but the largest that they do is always there.

    Args:
        hours: above 0.
        contents: what there is to label.
        timings: of the annotator.
        fractions: the shares, in [0, 1].

    Raises:
        UserError: there are no hours.
    """
    if not 0 < hours < float("inf"):
        raise UserError(f"{hours:g} hours are out of range", "--hours", "give more than 0")
    of_image, seconds = costs(contents, timings), hours * HOUR
    most = min(contents.images, _whole(seconds, of_image.masks, contents.images))
    counts = sorted({count for share in fractions if (count := round(share * contents.images)) <= most} | {most})
    return [_plan(count, seconds, contents, of_image) for count in counts]


def _plan(masks: int, seconds: float, contents: Contents, of_image: Costs) -> Plan:
    left = seconds - masks * of_image.masks
    points = min(contents.images - masks, _whole(left, of_image.points, contents.images))
    spent = masks * of_image.masks + points * of_image.points
    return Plan(masks / contents.images, masks, points, contents.images - masks - points, spent / HOUR)


def _whole(seconds: float, each: float, most: int) -> int:
    """How many fit, at most `most`; rounding errors do not cost one."""
    return most if each <= 0 else min(most, math.floor(max(0.0, seconds) / each + 1e-9))
