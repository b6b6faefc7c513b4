from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vtk_cli.segment.solov2.masks import pairwise_iou
from vtk_cli.segment.solov2.suppression import linear_decay, mask_nms, matrix_nms, point_nms


def strips(*spans: tuple[int, int]) -> Tensor:
    """Masks of one row that are true from the first to before the second."""
    masks = torch.zeros(len(spans), 1, 40, dtype=torch.bool)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[0, start:end] = True
    return masks


def labels(*values: int) -> Tensor:
    return torch.tensor(values)


def random_case(n: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(0, 25, (n,), generator=generator)
    masks = strips(*((int(start), int(start) + 5 + int(start) % 9) for start in starts))
    scores = torch.rand(n, generator=generator).sort(descending=True)[0]
    return masks, torch.randint(0, 3, (n,), generator=generator), scores


def test_a_point_stays_beside_lower_or_equal_left_and_upper_neighbours() -> None:
    row = torch.tensor([[0.9, 0.8, 0.95]])
    torch.testing.assert_close(point_nms(row[None])[0], torch.tensor([[0.9, 0, 0.95]]))
    equal = torch.full((1, 3, 3), 0.4)
    assert torch.equal(point_nms(equal), equal)


def test_point_nms_does_not_commute_with_a_flip() -> None:
    square = torch.tensor([[[0.5, 0.9], [0.9, 0.5]]])
    assert point_nms(square).tolist() == torch.tensor([[[0.5, 0.9], [0.9, 0.0]]]).tolist()
    assert not torch.equal(point_nms(square.flip(2)), point_nms(square).flip(2))


def test_point_nms_equals_a_loop() -> None:
    scores = torch.rand(3, 7, 6, generator=torch.Generator().manual_seed(2))
    expected = scores.clone()
    for k in range(3):
        for y in range(7):
            for x in range(6):
                window = scores[k, max(0, y - 1) : y + 1, max(0, x - 1) : x + 1]
                if scores[k, y, x] < window.max():
                    expected[k, y, x] = 0
    assert torch.equal(point_nms(scores), expected)


def test_a_duplicate_keeps_exp_minus_2_of_its_score() -> None:
    pair = strips((0, 10), (0, 10))
    scores = torch.tensor([0.9, 0.8])
    torch.testing.assert_close(matrix_nms(pair, labels(1, 1), scores), torch.tensor([0.9, 0.8 * math.exp(-2)]))
    assert 0.8 * math.exp(-2) == pytest.approx(0.1083, abs=1e-4)
    assert torch.equal(matrix_nms(pair, labels(1, 2), scores), scores)
    assert matrix_nms(pair, labels(1, 1), scores, linear_decay).tolist() == pytest.approx([0.9, 0])


def test_a_third_mask_decays_by_the_better_of_two_duplicates_alone() -> None:
    """IoU of (0, 12) and (4, 16) is 8 / 16 = 0.5; the second duplicate's compensation is e^2."""
    three = strips((0, 12), (0, 12), (4, 16))
    found = matrix_nms(three, labels(0, 0, 0), torch.tensor([0.9, 0.8, 0.7]))
    assert found.tolist() == pytest.approx([0.9, 0.8 * math.exp(-2), 0.7 * math.exp(-0.5)])
    linear = matrix_nms(three, labels(0, 0, 0), torch.tensor([0.9, 0.8, 0.7]), linear_decay)
    assert linear.tolist() == pytest.approx([0.9, 0, 0.35])


def test_disjoint_masks_and_the_best_keep_their_scores() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert torch.equal(matrix_nms(strips((0, 5), (5, 10), (10, 15)), labels(0, 0, 0), scores), scores)
    masks, classes, scores = random_case()
    assert matrix_nms(masks, classes, scores)[0] == scores[0]


@pytest.mark.parametrize("linear", [False, True])
def test_matrix_nms_equals_a_double_loop(*, linear: bool) -> None:
    masks, classes, scores = random_case()
    decay = (lambda iou: 1 - iou) if linear else (lambda iou: math.exp(-2 * iou * iou))
    n = len(masks)
    iou = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1, n):
            if classes[i] == classes[j]:
                a, b = set(masks[i, 0].nonzero().flatten().tolist()), set(masks[j, 0].nonzero().flatten().tolist())
                iou[i][j] = len(a & b) / len(a | b)
    compensation = [max((iou[k][i] for k in range(i)), default=0.0) for i in range(n)]
    expected = []
    for j in range(n):
        factors = [1.0]
        for i in range(j):
            bottom = decay(compensation[i])
            if bottom > 0:
                factors.append(decay(iou[i][j]) / bottom)
        expected.append(float(scores[j]) * min(factors))
    found = matrix_nms(masks, classes, scores, linear_decay) if linear else matrix_nms(masks, classes, scores)
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_nothing_is_suppressed_where_there_is_nothing() -> None:
    none = torch.zeros(0, 4, 4, dtype=torch.bool)
    assert matrix_nms(none, labels(), torch.zeros(0)).shape == (0,)
    assert mask_nms(none, labels(), torch.zeros(0), 0.5).shape == (0,)


def test_greedy_suppression_compares_with_those_that_stay() -> None:
    """The second falls to the first; the third overlaps only the second by more than half, and stays."""
    three = strips((0, 10), (3, 13), (6, 16))
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert pairwise_iou(three)[0, 1] == pytest.approx(7 / 13)
    assert mask_nms(three, labels(0, 0, 0), scores, 0.5).tolist() == [True, False, True]
    assert mask_nms(three, labels(0, 1, 0), scores, 0.5).tolist() == [True, True, True]
    assert mask_nms(three, labels(0, 0, 0), scores.flip(0), 0.5).tolist() == [True, False, True]


def test_an_overlap_of_just_the_most_is_allowed_and_equal_scores_keep_the_first() -> None:
    pair = strips((0, 12), (4, 16))
    assert mask_nms(pair, labels(0, 0), torch.tensor([0.5, 0.5]), 0.5).tolist() == [True, True]
    assert mask_nms(pair, labels(0, 0), torch.tensor([0.5, 0.5]), 0.49).tolist() == [True, False]


def test_iou_of_empty_masks_is_0() -> None:
    assert pairwise_iou(strips((0, 0), (0, 0), (0, 3))).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
