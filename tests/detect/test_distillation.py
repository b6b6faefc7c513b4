from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.distillation import check_teacher, rooted_token_distance, teacher_tokens, token_distance
from vtk_cli.detect.predictions import DistillationTokens
from vtk_cli.errors import UserError

Make = Callable[..., Any]


def tokens(seed: int, *, requires_grad: bool = False) -> DistillationTokens:
    generator = torch.Generator().manual_seed(seed)
    patches = tuple(torch.randn(2, cells, 8, generator=generator) for cells in (12, 6, 2))
    body = torch.randn(2, 5, 8, generator=generator)
    decoder = torch.cat((body[None], torch.randn(2, 2, 5, 8, generator=generator)))
    for part in (*patches, body, decoder):
        part.requires_grad_(requires_grad)
    return DistillationTokens(patches, body, decoder)


def test_a_detector_is_no_distance_from_itself_and_its_gradient_is_zero() -> None:
    student = tokens(0, requires_grad=True)
    assert float(token_distance(student, tokens(0)).detach()) == 0
    distance = rooted_token_distance(student, tokens(0))
    assert float(distance.detach()) == pytest.approx(0)
    distance.backward()
    for part in (*student.patches, student.body, student.decoder):
        assert part.grad is not None
        assert not bool(part.grad.any())


def test_the_distance_is_the_sum_of_mean_norms_with_each_level_of_the_decoder_counted() -> None:
    student, teacher = tokens(0), tokens(1)
    expected = 0.0
    for mine, theirs in zip(student.patches, teacher.patches, strict=True):
        norms = [float((a - b).norm()) for a, b in zip(mine.flatten(0, 1), theirs.flatten(0, 1), strict=True)]
        expected += sum(norms) / len(norms)
    body = [float((a - b).norm()) for a, b in zip(student.body.flatten(0, 1), teacher.body.flatten(0, 1), strict=True)]
    expected += sum(body) / len(body)
    for mine, theirs in zip(student.decoder, teacher.decoder, strict=True):
        norms = [float((a - b).norm()) for a, b in zip(mine.flatten(0, 1), theirs.flatten(0, 1), strict=True)]
        expected += sum(norms) / len(norms)
    assert float(token_distance(student, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(rooted_token_distance(student, teacher)) == pytest.approx(expected**0.5, rel=1e-5)


def test_a_teacher_never_gets_a_gradient(detector: Make, padded: Make) -> None:
    teacher, student = detector("vidt-micro", seed=1), detector("vidt-micro", seed=2)
    batch = padded((32, 64), (64, 32))
    token_distance(student(batch, for_losses=True).distil, teacher(batch, for_losses=True).distil).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.tgt_proj[0].weight.grad.abs().sum() > 0
    assert not teacher_tokens(teacher, batch).body.requires_grad


def test_a_teacher_of_another_backbone_with_the_same_tokens_is_accepted() -> None:
    check_teacher(detector_config("vidt-nano", 91), detector_config("vidt-base", 20))


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        ("vidt-nano", "vidt-plus-base", "DET tokens 300, not 100"),
        ("vidt-nano", "vidt-micro", "DET tokens 20, not 100"),
        ("vidt-neck-free-nano", "vidt-base", "without a decoder"),
    ],
)
def test_a_teacher_whose_tokens_do_not_match_is_refused(student: str, teacher: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_teacher(detector_config(student, 3), detector_config(teacher, 3))


def test_a_teacher_with_its_levels_the_other_way_round_is_refused() -> None:
    with pytest.raises(UserError, match="neck epff, not projection"):
        check_teacher(detector_config("vidt-nano", 3, queries=300), detector_config("vidt-plus-nano", 3))
