from __future__ import annotations

from pathlib import Path

import torch

from vtk_cli.segment.pseudo.resolving import POINT_OUTSIDE, REASONS, resolved_labels, unresolved_clicks
from vtk_cli.segment.solov2.point_inference import PointMasks
from vtk_cli.segment.solov2.predictions import Instances

from ..scenes_with_masks import box_mask, clicked

ONE, TWO = box_mask(30, 40, 3, 4, 10, 12), box_mask(30, 40, 20, 4, 36, 25)


def test_every_click_is_a_label_or_unresolved_with_a_reason(tmp_path: Path) -> None:
    image = clicked(tmp_path / "a.png", 9, [(x, x + 1, x % 2) for x in range(5)], first=70)
    masks = torch.stack([torch.from_numpy(mask) for mask in (TWO, ONE, ONE & False)])
    instances = Instances.of_masks(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 0]), masks)
    found = PointMasks(
        instances,
        clicks=torch.tensor([1, 2, 4]),
        levels=torch.tensor([0, 3, 2]),
        confidence=torch.tensor([0.5, 0.25, 0.5]),
        covers=torch.tensor([True, False, True]),
        unresolved=((0, "collision"), (3, "overlap")),
    )
    labels = list(resolved_labels(image, found))
    assert [(label.annotation_id, label.label, label.level, label.point) for label in labels] == [
        (71, 1, 0, (1, 2)),
        (72, 0, 3, (2, 3)),
    ]
    assert [label.score for label in labels] == [0.5, 0.25]
    assert [label.flags for label in labels] == [(), (POINT_OUTSIDE,)]
    assert [(label.pixels() == mask).all() for label, mask in zip(labels, (TWO, ONE), strict=True)] == [True, True]
    lost = list(unresolved_clicks(image, found))
    reasons = [(70, REASONS["collision"]), (73, REASONS["overlap"]), (74, REASONS["area"])]
    assert [(click.annotation_id, click.reason) for click in lost] == reasons
    assert sorted([label.annotation_id for label in labels] + [click.annotation_id for click in lost]) == [
        *range(70, 75)
    ]


def test_no_clicks_give_no_labels(tmp_path: Path) -> None:
    none = Instances.of_masks(
        torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 30, 40, dtype=torch.bool)
    )
    empty = torch.zeros(0, dtype=torch.int64)
    found = PointMasks(none, empty, empty, torch.zeros(0), torch.zeros(0, dtype=torch.bool), ())
    image = clicked(tmp_path / "a.png", 9, [])
    assert [*resolved_labels(image, found), *unresolved_clicks(image, found)] == []
