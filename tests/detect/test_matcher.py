from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from vtk_cli.detect.matcher import (
    CostWeights,
    Matches,
    Objects,
    focal_class_cost,
    match,
    objects_of,
    softmax_class_cost,
)
from vtk_cli.detect.predictions import Target

WEIGHTS = CostWeights()


def some_boxes(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(*shape, 2, generator=generator) * 0.6 + 0.2
    return torch.cat((centre, torch.rand(*shape, 2, generator=generator) * 0.3 + 0.05), -1)


def target(labels: list[int], boxes: Tensor) -> Target:
    n = len(labels)
    return Target(torch.tensor(labels).long(), boxes, None, torch.ones(n), torch.zeros(n).bool(), 1, (8, 8), (8, 8))


def batch_of(counts: tuple[int, ...], classes: int, seed: int) -> Objects:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(classes, (count,), generator=generator).tolist() for count in counts]
    return objects_of([target(labels, some_boxes(len(labels), seed=seed + i)) for i, labels in enumerate(drawn)])


def slow_cost(logits: Tensor, box: Tensor, label: int, wanted: Tensor) -> float:
    """Of one query for one object, number by number."""
    p = float(logits[label].sigmoid())
    log = torch.log
    positive = 0.25 * (1 - p) ** 2 * -float(log(torch.tensor(p + 1e-8)))
    negative = 0.75 * p**2 * -float(log(torch.tensor(1 - p + 1e-8)))
    l1 = sum(abs(float(a) - float(b)) for a, b in zip(box, wanted, strict=True))
    (ax, ay, aw, ah), (bx, by, bw, bh) = box.tolist(), wanted.tolist()
    sides = [(a - s / 2, a + s / 2, b - t / 2, b + t / 2) for a, s, b, t in ((ax, aw, bx, bw), (ay, ah, by, bh))]
    inner = [max(0.0, min(a1, b1) - max(a0, b0)) for a0, a1, b0, b1 in sides]
    hull = [max(a1, b1) - min(a0, b0) for a0, a1, b0, b1 in sides]
    inter, enclosing = inner[0] * inner[1], hull[0] * hull[1]
    union = aw * ah + bw * bh - inter
    giou = inter / union - (enclosing - union) / enclosing
    return 2 * (positive - negative) + 5 * l1 - 2 * giou


def by_brute_force(logits: Tensor, boxes: Tensor, labels: Tensor, wanted: Tensor) -> set[tuple[int, int]]:
    """The (query, object) pairs of least cost among all ways to pair one image's queries and objects."""
    Q, n = len(logits), len(labels)
    cost = [[slow_cost(logits[q], boxes[q], int(labels[o]), wanted[o]) for o in range(n)] for q in range(Q)]
    if n <= Q:
        ways = ([(q, o) for o, q in enumerate(chosen)] for chosen in permutations(range(Q), n))
    else:
        ways = ([(q, o) for q, o in enumerate(chosen)] for chosen in permutations(range(n), Q))
    return set(min(ways, key=lambda pairs: sum(cost[q][o] for q, o in pairs)))


def pairs_of(matches: Matches, level: int, image: int) -> set[tuple[int, int]]:
    here = matches.images[level] == image
    return set(zip(matches.queries[level][here].tolist(), matches.objects[level][here].tolist(), strict=True))


@pytest.mark.parametrize("counts", [(1, 3, 2), (0, 4, 0), (5, 0, 7)])
def test_the_matching_is_the_best_of_all(counts: tuple[int, ...]) -> None:
    """With fewer objects than queries, as many, and more; each level and each image by itself."""
    L, Q, K = 3, 5, 4
    objects = batch_of(counts, K, seed=3)
    logits = torch.randn(L, len(counts), Q, K, generator=torch.Generator().manual_seed(4)) * 2
    boxes = some_boxes(L, len(counts), Q, seed=5)
    matches = match(logits, boxes, objects, focal_class_cost, WEIGHTS)
    assert matches.queries.shape == (L, sum(min(count, Q) for count in counts))
    first = 0
    for image, count in enumerate(counts):
        own = slice(first, first + count)
        for level in range(L):
            found = {(q, o - first) for q, o in pairs_of(matches, level, image)}
            best = by_brute_force(logits[level, image], boxes[level, image], objects.labels[own], objects.boxes[own])
            assert found == best
        first += count


def test_the_class_cost_of_an_even_chance_is_minus_0_086643() -> None:
    torch.testing.assert_close(focal_class_cost(torch.zeros(2)), torch.full((2,), -0.086643), atol=1e-6, rtol=0)


def test_the_class_cost_falls_as_the_class_gets_surer() -> None:
    cost = focal_class_cost(torch.linspace(-8, 8, 50))
    assert bool((cost.diff() < 0).all())


def test_without_a_neck_the_class_costs_minus_its_probability() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(softmax_class_cost(logits), -logits.exp() / logits.exp().sum())


def test_two_objects_that_change_places_are_matched_to_the_same_queries() -> None:
    objects = batch_of((3,), 4, seed=1)
    order = torch.tensor([2, 0, 1])
    moved = Objects(objects.labels[order], objects.boxes[order], objects.images, objects.counts)
    logits, boxes = torch.randn(2, 1, 6, 4, generator=torch.Generator().manual_seed(2)), some_boxes(2, 1, 6, seed=9)
    one, other = (match(logits, boxes, each, focal_class_cost, WEIGHTS) for each in (objects, moved))
    for level in range(2):
        assert pairs_of(one, level, 0) == {(q, int(order[o])) for q, o in pairs_of(other, level, 0)}


def test_an_exact_prediction_is_matched_to_its_object() -> None:
    objects = batch_of((4, 2), 3, seed=7)
    chosen = torch.tensor([5, 0, 3, 2, 1, 4])
    logits, boxes = torch.full((1, 2, 6, 3), -5.0), some_boxes(1, 2, 6, seed=8)
    logits[0, objects.images, chosen, objects.labels] = 5.0
    boxes[0, objects.images, chosen] = objects.boxes
    matches = match(logits, boxes, objects, focal_class_cost, WEIGHTS)
    assert torch.equal(matches.queries[0], chosen)
    assert torch.equal(matches.objects[0], torch.arange(6))
    assert torch.equal(matches.of(boxes)[0], objects.boxes)


def test_no_object_in_the_whole_batch_is_no_match() -> None:
    objects = batch_of((0, 0), 3, seed=0)
    logits, boxes = torch.randn(3, 2, 4, 3), some_boxes(3, 2, 4, seed=0)
    matches = match(logits, boxes, objects, focal_class_cost, WEIGHTS)
    assert matches.of(boxes).shape == (3, 0, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_box_that_is_not_finite_is_matched_so_that_the_loss_shows_it(value: float) -> None:
    objects = batch_of((1,), 3, seed=0)
    logits, boxes = torch.zeros(1, 1, 4, 3), some_boxes(1, 1, 4, seed=0)
    boxes[0, 0, 2, 1] = value
    matches = match(logits, boxes, objects, focal_class_cost, WEIGHTS)
    assert matches.queries.tolist() == [[2]]


def test_one_level_of_matches_is_that_of_all() -> None:
    matches = Matches(*(torch.arange(6).reshape(2, 3) + part for part in (0, 10, 20)))
    last = matches.level(-1)
    assert [last.images.tolist(), last.queries.tolist(), last.objects.tolist()] == [
        [[3, 4, 5]],
        [[13, 14, 15]],
        [[23, 24, 25]],
    ]
