from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.detect.shared_batches import CASES
from tests.engine.two_processes import run_world
from vtk_cli.detect.criterion import Criterion, Losses, LossWeights, NeckFreeCriterion, mask_codes, mean_counts
from vtk_cli.detect.distillation import teacher_tokens, token_distance
from vtk_cli.detect.matcher import Matches, objects_of
from vtk_cli.detect.predictions import Outputs, Target
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import UserError

Make = Callable[..., Any]
WORLD = World(0, 1, 0, torch.device("cpu"))
SIZES = ((64, 96), (48, 64))
PLUS = {"mask_coefficients": 6}


def target(count: int, size: tuple[int, int], seed: int, *, masks: bool = True) -> Target:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * 0.5 + 0.25
    boxes = torch.cat((centre, torch.rand(count, 2, generator=generator) * 0.3 + 0.1), -1)
    outlines = torch.rand(count, *size, generator=generator) > 0.5
    labels = torch.randint(3, (count,), generator=generator)
    crowd = torch.zeros(count, dtype=torch.bool)
    return Target(labels, boxes, outlines if masks else None, torch.ones(count), crowd, seed, size, size)


def targets(*counts: int, masks: bool = True) -> list[Target]:
    return [
        target(count, size, seed, masks=masks) for seed, (count, size) in enumerate(zip(counts, SIZES, strict=True))
    ]


def values(losses: Losses) -> dict[str, float]:
    return {name: float(term.detach()) for name, term in losses.terms.items()}


def with_order(one: Target, order: Tensor) -> Target:
    masks = None if one.masks is None else one.masks[order]
    return replace(one, labels=one.labels[order], boxes=one.boxes[order], masks=masks)


@pytest.mark.parametrize(
    ("name", "changes", "masks", "terms"),
    [
        ("vidt-micro", {}, False, ("class", "box", "giou")),
        ("vidt-plus-micro", {}, True, ("class", "box", "giou", "iou", "token_focal", "token_dice")),
        ("vidt-plus-micro", PLUS, True, ("class", "box", "giou", "iou", "code", "token_focal", "token_dice")),
        ("vidt-plus-micro", {"token_labels": False}, False, ("class", "box", "giou", "iou")),
    ],
)
def test_each_head_has_its_loss(
    name: str, changes: dict[str, Any], masks: bool, terms: tuple[str, ...], detector: Make, padded: Make
) -> None:
    network, batch = detector(name, **changes), padded(*SIZES)
    losses = Criterion(network.config, WORLD)(network(batch, for_losses=True), targets(2, 3, masks=masks), batch)
    assert tuple(losses.terms) == terms
    assert all(value > 0 for value in values(losses).values())
    torch.testing.assert_close(losses.total, torch.stack(list(losses.terms.values())).sum())
    assert 0 <= float(losses.class_error) <= 1


def test_the_loss_of_all_levels_is_the_sum_of_those_of_each(detector: Make, padded: Make) -> None:
    """Each level is matched and counted by itself."""
    network, batch = detector("vidt-plus-micro", token_labels=False, **PLUS), padded(*SIZES)
    criterion = Criterion(network.config, WORLD)
    outputs = network(batch, for_losses=True)
    each = [values(criterion(Outputs((level,)), targets(2, 3), batch)) for level in outputs.levels]
    for name, value in values(criterion(outputs, targets(2, 3), batch)).items():
        assert value == pytest.approx(sum(level[name] for level in each), rel=1e-5)


def test_objects_in_another_order_cost_the_same(detector: Make, padded: Make) -> None:
    """But for token labels, where objects that overlap are told apart by their order."""
    network, batch = detector("vidt-plus-micro", token_labels=False, **PLUS), padded(*SIZES)
    criterion, outputs = Criterion(network.config, WORLD), network(batch, for_losses=True)
    some = targets(3, 4)
    turned = [with_order(one, torch.arange(len(one.labels)).flip(0)) for one in some]
    before, after = (values(criterion(outputs, each, batch)) for each in (some, turned))
    assert before == pytest.approx(after, rel=1e-5)


def test_an_object_without_a_query_changes_the_divisor_alone(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-micro", queries=2), padded(*SIZES)
    criterion, outputs = Criterion(network.config, WORLD), network(batch, for_losses=True)
    some = targets(2, 1, masks=False)
    far = torch.tensor([[0.999, 0.999, 1e-3, 1e-3]])
    first = replace(some[0], labels=some[0].labels[[0, 1, 1]], boxes=torch.cat((some[0].boxes, far)))
    before, after = (values(criterion(outputs, each, batch)) for each in (some, [first, some[1]]))
    for name, value in before.items():
        assert after[name] == pytest.approx(value * 3 / 4, rel=1e-5), name


@pytest.mark.parametrize("name", ["vidt-micro", "vidt-plus-micro"])
def test_images_without_objects_have_a_finite_loss_and_gradient(name: str, detector: Make, padded: Make) -> None:
    changes = PLUS if "plus" in name else {}
    network, batch = detector(name, **changes), padded(*SIZES)
    losses = Criterion(network.config, WORLD)(network(batch, for_losses=True), targets(0, 0), batch)
    assert [values(losses)[term] for term in ("box", "giou")] == [0, 0]
    losses.total.backward()
    for parameter in network.parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and bool(parameter.grad.isfinite().all()))


def test_perfect_predictions_of_boxes_and_codes_cost_nothing(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-plus-micro", token_labels=False, **PLUS), padded(*SIZES)
    some = targets(3, 2)
    final = network(batch, for_losses=True).final
    logits, boxes = torch.full_like(final.logits, -30), final.boxes.clone()
    iou, vectors = torch.full_like(final.iou_logits, 30), torch.zeros_like(final.vectors)
    codes = iter(mask_codes(some, 6).split([3, 2]))
    for image, one in enumerate(some):
        queries = torch.arange(len(one.labels)) + 2
        logits[image, queries, one.labels] = 30
        boxes[image, queries], vectors[image, queries] = one.boxes, next(codes)
    exact = Outputs((replace(final, logits=logits, boxes=boxes, iou_logits=iou, vectors=vectors),))
    losses = Criterion(network.config, WORLD)(exact, some, batch)
    assert values(losses) == pytest.approx(dict.fromkeys(losses.terms, 0), abs=1e-5)
    assert float(losses.class_error) == 0


def test_masks_that_are_needed_but_not_there_are_refused(detector: Make, padded: Make) -> None:
    batch = padded(*SIZES)
    for changes in ({"token_labels": False, **PLUS}, {}):
        network = detector("vidt-plus-micro", **changes)
        outputs = network(batch, for_losses=True)
        with pytest.raises(ValueError, match="image 0 has no masks"):
            Criterion(network.config, WORLD)(outputs, targets(1, 1, masks=False), batch)


@pytest.mark.parametrize("grad", [True, False])
def test_boxes_learn_from_the_predicted_iou_only_if_they_may(grad: bool, detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-plus-micro"), padded(*SIZES)
    criterion = Criterion(network.config, WORLD, iou_target_grad=grad)
    loss = criterion(network(batch, for_losses=True), targets(2, 2), batch).terms["iou"]
    loss.backward()
    learns = [parameter.grad is not None for parameter in network.heads.bbox_embed.parameters()]
    assert all(learns) if grad else not any(learns)
    assert all(parameter.grad is not None for parameter in network.heads.iou_embed.parameters())


def test_only_the_body_teaches_the_first_points(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-micro"), padded(*SIZES)
    criterion, outputs = Criterion(network.config, WORLD), network(batch, for_losses=True)
    for level, output in enumerate(outputs.levels):
        network.zero_grad()
        criterion(Outputs((output,)), targets(2, 2), batch).total.backward(retain_graph=True)
        assert (network.reference_points.weight.grad is not None) == (level == 0)


def test_the_teachers_tokens_are_one_term_and_its_root_can_be_left_out(detector: Make, padded: Make) -> None:
    student, teacher, batch = detector("vidt-micro", seed=1), detector("vidt-micro", seed=2), padded(*SIZES)
    outputs, tokens = student(batch, for_losses=True), teacher_tokens(teacher, batch)
    distance = float(token_distance(outputs.distil, tokens).detach())
    for root, expected in ((True, 4 * distance**0.5), (False, 4 * distance)):
        criterion = Criterion(student.config, WORLD, distil_root=root)
        losses = criterion(outputs, targets(1, 1), batch, tokens)
        assert values(losses)["distil"] == pytest.approx(expected, rel=1e-5)


def test_weights_scale_their_terms(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-plus-micro", **PLUS), padded(*SIZES)
    outputs = network(batch, for_losses=True)
    ones = LossWeights(1, 1, 1, 1, 1, 1, 1, 1)
    plain, published = (
        values(Criterion(network.config, WORLD, weights)(outputs, targets(2, 2), batch))
        for weights in (ones, LossWeights())
    )
    expected = {"class": 2, "box": 5, "giou": 2, "iou": 2, "code": 1, "token_focal": 2, "token_dice": 2}
    assert {name: published[name] / plain[name] for name in plain} == pytest.approx(expected, rel=1e-5)


def test_autocast_changes_nothing_in_the_losses(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-plus-micro", **PLUS), padded(*SIZES)
    criterion, outputs = Criterion(network.config, WORLD), network(batch, for_losses=True)
    plain = criterion(outputs, targets(2, 2), batch)
    with torch.autocast("cpu", torch.bfloat16):
        under = criterion(outputs, targets(2, 2), batch)
    assert values(plain) == values(under)


def test_one_copy_to_the_host_serves_all_levels(detector: Make, padded: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = detector("vidt-plus-micro"), padded(*SIZES)
    criterion, outputs = Criterion(network.config, WORLD), network(batch, for_losses=True)
    copied: list[torch.Size] = []
    plain = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: copied.append(tensor.shape) or plain(tensor))
    criterion(outputs, targets(2, 3), batch)
    assert copied == [(len(outputs.levels), 5, 7)]


def test_the_divisor_is_at_least_one() -> None:
    for counts, matched, expected in (((0, 0), 0, (1, 0)), ((2, 3), 4, (5, 4))):
        matches = Matches(*torch.zeros(3, 2, matched, dtype=torch.int64))
        assert tuple(map(float, mean_counts(objects_of(targets(*counts)), matches, WORLD))) == expected


def test_a_prediction_that_is_not_finite_makes_the_loss_so(detector: Make, padded: Make) -> None:
    """So that training stops and says where; the matching itself does not fail."""
    network, batch = detector("vidt-micro"), padded(*SIZES)
    outputs = network(batch, for_losses=True)
    boxes = outputs.final.boxes.clone()
    boxes[1, 3, 2] = float("nan")
    broken = Outputs((*outputs.levels[:-1], replace(outputs.final, boxes=boxes)))
    losses = Criterion(network.config, WORLD)(broken, targets(2, 2), batch)
    assert not bool(losses.total.isfinite())


def test_the_neck_free_detector_learns_classes_and_boxes(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-neck-free-micro").train(), padded(*SIZES)
    criterion = NeckFreeCriterion(WORLD)
    losses = criterion(network(batch), targets(2, 3, masks=False), batch)
    assert tuple(losses.terms) == ("class", "box", "giou")
    losses.total.backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in network.parameters())
    assert bool(criterion(network(batch), targets(0, 0), batch).total.isfinite())


def test_the_neck_free_detector_has_no_teacher(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-neck-free-micro"), padded(*SIZES)
    tokens = teacher_tokens(detector("vidt-micro"), batch)
    with pytest.raises(UserError, match="cannot be distilled"):
        NeckFreeCriterion(WORLD)(network(batch), targets(1, 1), batch, tokens)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Tensor]]]:
    """The gradients that `shared_batches.py` finds."""
    folder, script = tmp_path_factory.mktemp("shared"), Path(__file__).with_name("shared_batches.py")
    assert run_world(script, folder) == [0, 0]
    found: dict[str, dict[str, list[Tensor]]] = torch.load(folder / "gradients.pt", weights_only=True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_make_the_gradient_of_one_with_their_images_together(
    shared: dict[str, dict[str, list[Tensor]]], case: str
) -> None:
    for one, two in zip(shared[case]["one"], shared[case]["two"], strict=True):
        assert bool(one.any()) or 0 in CASES[case][1]
        torch.testing.assert_close(two, one, atol=1e-6, rtol=1e-5)
    assert bool(shared[case]["one"][0].any())
