from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.decoder import memory_of
from vtk_cli.detect.heads import Heads, TokenHead, inverse_sigmoid

PLUS = detector_config("vidt-plus-micro", 3, mask_coefficients=6)


@pytest.mark.parametrize(
    ("probability", "logit"), [(0.5, 0.0), (0.25, -1.0986123), (0.0, -11.512925), (1.0, 11.512925)]
)
def test_the_inverse_of_the_sigmoid_ends_at_ln_1e5(probability: float, logit: float) -> None:
    assert float(inverse_sigmoid(torch.tensor(probability, dtype=torch.float64))) == pytest.approx(logit, abs=2e-5)
    assert float(inverse_sigmoid(torch.tensor(-3.0))) == pytest.approx(-11.512925, abs=2e-5)


def test_fresh_heads_say_one_percent_and_boxes_of_0_1192() -> None:
    heads = Heads(PLUS)
    references = torch.rand(2, 5, 2)
    boxes = heads.boxes(0, torch.randn(2, 5, 64), references)
    torch.testing.assert_close(boxes[..., :2], references, atol=1e-5, rtol=0)
    torch.testing.assert_close(boxes[..., 2:], torch.full((2, 5, 2), 0.1192029))
    again = heads.boxes(1, torch.randn(2, 5, 64), boxes)
    torch.testing.assert_close(again, boxes, atol=1e-6, rtol=0)
    silent = heads.level(0, torch.zeros(2, 5, 64), boxes)
    torch.testing.assert_close(silent.logits.sigmoid(), torch.full((2, 5, 3), 0.01))
    assert silent.vectors is not None
    assert not silent.vectors.any()
    assert silent.vectors.shape == (2, 5, 6)
    assert silent.iou_logits is not None
    assert silent.iou_logits.shape == (2, 5)


def test_refined_levels_have_heads_of_their_own_that_begin_alike() -> None:
    heads = Heads(PLUS)
    assert len(heads.class_embed) == len(heads.bbox_embed) == len(heads.iou_embed or ()) == 3
    assert torch.equal(heads.class_embed[0].weight, heads.class_embed[2].weight)
    assert heads.class_embed[0].weight is not heads.class_embed[2].weight
    assert heads.bbox_embed[0].layers[2].bias.tolist() == [0, 0, -2, -2]
    assert heads.bbox_embed[1].layers[2].bias.tolist() == [0, 0, 0, 0]


def test_without_refinement_one_set_of_heads_serves_all_levels() -> None:
    heads = Heads(replace(PLUS, refine=False))
    assert len(heads.class_embed) == len(heads.bbox_embed) == 1
    tokens, references = torch.randn(1, 2, 64), torch.rand(1, 2, 2)
    assert torch.equal(heads.boxes(0, tokens, references), heads.boxes(2, tokens, references))


def test_without_auxiliary_levels_only_the_last_heads_learn() -> None:
    heads = Heads(replace(PLUS, aux=False))
    learning = {name for name, parameter in heads.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in learning if "vector" not in name} == {"2"}
    shared = Heads(replace(PLUS, aux=False, refine=False))
    assert all(parameter.requires_grad for parameter in shared.parameters())


def test_boxes_and_logits_of_half_precision_tokens_are_float32() -> None:
    heads = Heads(PLUS).bfloat16()
    boxes = heads.boxes(0, torch.randn(1, 2, 64).bfloat16(), torch.rand(1, 2, 2))
    level = heads.level(0, torch.randn(1, 2, 64).bfloat16(), boxes)
    assert boxes.dtype == level.logits.dtype == torch.float32
    assert Heads(PLUS).double().boxes(0, torch.randn(1, 2, 64).double(), torch.rand(1, 2, 2)).dtype == torch.float64


def test_token_logits_have_the_shapes_of_the_levels_in_their_order() -> None:
    torch.manual_seed(0)
    head = TokenHead(8, 4)
    maps = [torch.randn(1, 8, 6, 8), torch.randn(1, 8, 3, 4)]
    logits = head(memory_of(maps, torch.zeros(1, 48, 64, dtype=torch.bool)))
    assert [tuple(each.shape) for each in logits] == [(1, 4, 6, 8), (1, 4, 3, 4)]
    expected = head.classify(head.norm(head.project(maps[0][0, :, 2, 5])))
    torch.testing.assert_close(logits[0][0, :, 2, 5], expected)


def test_token_logits_of_padding_and_of_the_very_edge_are_those_of_a_zero_cell() -> None:
    torch.manual_seed(0)
    head = TokenHead(8, 4)
    mask = torch.ones(2, 64, 640, dtype=torch.bool)
    mask[0], mask[1, :32, :320] = False, False
    logits = head(memory_of([torch.randn(2, 8, 8, 80)], mask))[0]
    nothing = head.classify(head.norm(head.project(torch.zeros(8))))
    blank = (logits - nothing[:, None, None]).abs().amax(1) < 1e-6
    whole = torch.zeros(8, 80, dtype=torch.bool)
    whole[:, [0, 79]] = True  # centres at 0.5 / 80 and 79.5 / 80, within 0.01 of the edge
    assert torch.equal(blank[0], whole)
    half = torch.ones(8, 80, dtype=torch.bool)
    half[:4, :40] = False  # centres of 40 columns begin at 0.0125
    assert torch.equal(blank[1], half)
