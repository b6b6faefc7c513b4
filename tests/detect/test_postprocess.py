from __future__ import annotations

import pytest
import torch

from vtk_cli.detect.mask_code import above_midrange, encode_masks
from vtk_cli.detect.postprocess import detections, sigmoid_ranking, softmax_ranking
from vtk_cli.detect.predictions import LevelOutput


def test_the_best_pairs_of_query_and_class_are_ranked() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 5, generator=generator)
    ranking = sigmoid_ranking(logits, 9)
    for image in range(2):
        every = sorted(((float(logits[image, q, k].sigmoid()), k, q) for q in range(7) for k in range(5)), reverse=True)
        parts = (ranking.scores[image], ranking.labels[image], ranking.queries[image])
        assert list(zip(*(part.tolist() for part in parts), strict=True)) == every[:9]


def test_at_most_a_hundred_are_kept_and_all_if_there_are_fewer() -> None:
    ranking = sigmoid_ranking(torch.randn(2, 60, 3))
    assert ranking.scores.shape == (2, 100)
    assert bool((ranking.scores.diff(dim=1) <= 0).all())
    assert bool((ranking.labels < 3).all())
    assert bool((ranking.queries < 60).all())
    assert sigmoid_ranking(torch.randn(2, 4, 3)).scores.shape == (2, 12)


def test_a_query_may_appear_with_two_labels() -> None:
    logits = torch.tensor([[[4.0, 3.0, -9.0], [-9.0, -9.0, -9.0]]])
    ranking = sigmoid_ranking(logits, 2)
    assert ranking.queries.tolist() == [[0, 0]]
    assert ranking.labels.tolist() == [[0, 1]]


def test_without_a_neck_no_object_is_no_label() -> None:
    logits = torch.tensor([[[1.0, 2.0, 9.0], [3.0, 0.0, 0.0], [0.0, 2.5, 0.0]]])
    ranking = softmax_ranking(logits)
    assert ranking.queries.tolist() == [[1, 2, 0]]
    assert ranking.labels.tolist() == [[0, 1, 1]]
    torch.testing.assert_close(ranking.scores[0, 0], logits[0, 1].softmax(0)[0])


def test_boxes_come_out_in_pixels_of_each_original_image() -> None:
    boxes = torch.tensor([[[0.5, 0.25, 0.5, 0.5]], [[0.5, 0.25, 0.5, 0.5]]])
    level = LevelOutput(torch.zeros(2, 1, 1), boxes)
    first, second = detections(level, sigmoid_ranking(level.logits), [(100, 200), (40, 80)])
    torch.testing.assert_close(first.boxes, torch.tensor([[50.0, 0.0, 150.0, 50.0]]))
    torch.testing.assert_close(second.boxes, torch.tensor([[20.0, 0.0, 60.0, 20.0]]))
    assert first.masks is None


def test_boxes_and_masks_follow_their_queries() -> None:
    crops = torch.zeros(2, 128, 128, dtype=torch.bool)
    crops[0, :, :64], crops[1, 64:] = True, True
    level = LevelOutput(
        torch.tensor([[[-2.0], [3.0]]]),
        torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]]]),
        vectors=encode_masks(crops, 256)[None],
    )
    (found,) = detections(level, sigmoid_ranking(level.logits), [(16, 24)], masks=True)
    assert found.queries.tolist() == [1, 0]
    expected = torch.zeros(2, 16, 24, dtype=torch.bool)
    expected[0, 8:, 12:] = True  # the lower half of the right box
    expected[1, :, :6] = True  # the left half of the left box
    assert found.masks is not None
    assert torch.equal(found.masks, expected)


def test_what_counts_as_filled_can_be_the_midrange() -> None:
    code = torch.zeros(1, 1, 256)
    code[..., 0] = 128
    level = LevelOutput(torch.zeros(1, 1, 1), torch.tensor([[[0.5, 0.5, 1.0, 1.0]]]), vectors=code)
    ranking = sigmoid_ranking(level.logits)
    for filled, share in ((None, 1.0), (above_midrange, 0.0)):
        (found,) = detections(level, ranking, [(9, 9)], masks=True, **({} if filled is None else {"filled": filled}))
        assert found.masks is not None
        assert float(found.masks.float().mean()) == share


def test_masks_of_a_prediction_without_them_are_refused() -> None:
    level = LevelOutput(torch.zeros(1, 1, 1), torch.full((1, 1, 4), 0.5))
    with pytest.raises(ValueError, match="no masks"):
        detections(level, sigmoid_ranking(level.logits), [(9, 9)], masks=True)
