"""From the masks that point-guided inference finds to pseudo labels, and the clicks that it finds none for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from vtk_cli.data.detection.outlines import Bools, outline_of_mask
from vtk_cli.data.points.records import PointImage
from vtk_cli.segment.pseudo.labels import PseudoLabel, UnresolvedClick
from vtk_cli.segment.solov2.point_inference import PointMasks, Reason

POINT_OUTSIDE = "point_outside"
"""The flag of a mask that its click lies outside of."""
REASONS: Mapping[Reason, str] = {
    "collision": "other clicks of the class have its cells",
    "area": "the mask is empty or smaller than a cell",
    "overlap": "a better mask of the class overlaps it",
    "count": "the image has too many objects",
}


def resolved_labels(image: PointImage, found: PointMasks) -> Iterator[PseudoLabel]:
    """The pseudo labels of an image, in the order of its clicks; each mask is run lengths before the next is looked at.

    A mask that is empty at the size of the image is none; `unresolved_clicks` has its click.

    Args:
        image: with the clicks.
        found: what was found for them, in their order.
    """
    rows = zip(
        found.clicks.tolist(),
        found.instances.labels.tolist(),
        found.instances.scores.tolist(),
        found.levels.tolist(),
        found.confidence.tolist(),
        found.covers.tolist(),
        found.instances.masks,
        strict=True,
    )
    for click, label, maskness, level, confidence, covers, mask in rows:
        pixels: Bools = mask.cpu().numpy().astype(np.bool_)
        if pixels.any():
            yield PseudoLabel(
                image_id=image.id,
                annotation_id=int(image.annotation_ids[click]),
                label=label,
                point=_point(image, click),
                mask=outline_of_mask(pixels),
                level=level,
                score=confidence,
                maskness=maskness,
                flags=() if covers else (POINT_OUTSIDE,),
            )


def unresolved_clicks(image: PointImage, found: PointMasks) -> Iterator[UnresolvedClick]:
    """The clicks of an image that have no pseudo label, and why."""
    empty = (~found.instances.masks.flatten(1).any(1)).tolist()
    lost: list[tuple[int, Reason]] = [
        (click, "area") for click, none in zip(found.clicks.tolist(), empty, strict=True) if none
    ]
    for click, reason in sorted((*found.unresolved, *lost)):
        yield UnresolvedClick(
            image.id,
            int(image.annotation_ids[click]),
            int(image.labels[click]),
            _point(image, click),
            REASONS[reason],
        )


def _point(image: PointImage, click: int) -> tuple[float, float]:
    x, y = image.points[click].tolist()
    return x, y
