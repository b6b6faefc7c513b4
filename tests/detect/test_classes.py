from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vtk_cli.detect.classes import coco_classes, labels_of, select_labels
from vtk_cli.detect.configurations import Classes

Make = Callable[..., Any]


def test_coco_has_80_classes_under_91_ids() -> None:
    coco = coco_classes()
    assert coco.category_ids == tuple(range(91))
    assert sum(name != "N/A" for name in coco.names) == 80
    assert (coco.names[1], coco.names[44], coco.names[90]) == ("person", "bottle", "toothbrush")
    assert (coco.names[0], coco.names[12], coco.names[83]) == ("N/A", "N/A", "N/A")


def test_classes_are_found_by_name() -> None:
    have = Classes(("cat", "dog", "cow", "dog"), (1, 2, 3, 4))
    assert labels_of(Classes(("cow", "cat"), (8, 9)), have) == (2, 0)
    assert labels_of(Classes(("cow", "pig"), (8, 9)), have) is None
    assert labels_of(Classes(("dog",), (8,)), have) is None  # which of the two?
    assert labels_of(Classes(("N/A",), (0,)), coco_classes()) is None


def test_some_of_the_classes_predict_what_they_did_among_all(detector: Make, padded: Make) -> None:
    """Labels that are ids, as published, become labels that are not; channel 0 of the tokens stays any object."""
    network, batch = detector("vidt-plus-micro", classes=6, token_offset=0), padded((64, 96))
    before = network(batch, for_losses=True)
    state, config = select_labels(network.state_dict(), network.config, (5, 2))
    assert (config.classes, config.token_channels) == (2, 3)
    smaller = detector("vidt-plus-micro", classes=2)
    smaller.load_state_dict(state)
    after = smaller(batch, for_losses=True)
    torch.testing.assert_close(after.final.boxes, before.final.boxes)
    torch.testing.assert_close(after.final.logits, before.final.logits[..., [5, 2]])
    torch.testing.assert_close(after.token_logits[0], before.token_logits[0][:, [0, 5, 2]])
