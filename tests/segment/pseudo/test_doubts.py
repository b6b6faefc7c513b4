from __future__ import annotations

from pathlib import Path

import torch

from vtk_cli.segment.pseudo.doubts import images_to_label, missing_clicks, worst_first
from vtk_cli.segment.pseudo.labels import UnresolvedClick
from vtk_cli.segment.solov2.predictions import Instances

from ..scenes_with_masks import box_mask, clicked, pseudo

ONE, TWO = box_mask(30, 40, 3, 4, 10, 12), box_mask(30, 40, 20, 4, 36, 25)


def test_confident_detections_that_no_click_lies_in_are_missing_clicks(tmp_path: Path) -> None:
    image = clicked(tmp_path / "a.png", 5, [(3.4, 11.4, 1), (0, 0, 0)])
    masks = torch.stack([torch.from_numpy(mask) for mask in (ONE, TWO, TWO, TWO & False)])
    found = Instances.of_masks(torch.tensor([0.9, 0.8, 0.5, 0.9]), torch.tensor([0, 1, 1, 0]), masks)
    (missing,) = missing_clicks(image, found)
    assert (missing.image_id, missing.label) == (5, 1)
    assert len(list(missing_clicks(clicked(tmp_path / "b.png", 6, []), found))) == 2
    assert len(list(missing_clicks(clicked(tmp_path / "b.png", 6, []), found, least=0.4))) == 3


def test_labels_are_ordered_by_how_little_they_are_to_be_trusted() -> None:
    labels = [
        pseudo(1, 1, ONE, score=0.5, iou_rough_refined=0.9),
        pseudo(1, 2, ONE, score=0.2, flags=("a",)),
        pseudo(1, 3, ONE, score=0.9, iou_rough_refined=0.1, flags=("a", "b")),
    ]
    orders = {
        order: [label.annotation_id for label in worst_first(labels, order)] for order in ("score", "iou", "flags")
    }
    assert orders == {"score": [2, 1, 3], "iou": [3, 1, 2], "flags": [3, 2, 1]}


def test_images_to_label_come_worst_first_and_a_lost_click_counts_0() -> None:
    labels = [
        pseudo(1, 1, ONE, score=0.8, iou_rough_refined=0.5),
        pseudo(2, 2, ONE, score=0.9),
        pseudo(3, 3, ONE, score=0.6),
    ]
    lost = [UnresolvedClick(2, 4, 0, (1.0, 1.0), "x"), UnresolvedClick(4, 5, 0, (1.0, 1.0), "x")]
    assert images_to_label(labels, lost) == [(4, 0.0), (1, 0.4), (2, 0.45), (3, 0.6)]
