"""A classifier that a checkpoint fills, or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.networks.class_head import fill_class_head


def stored(classes: int, width: int = 5) -> dict[str, torch.Tensor]:
    return {"weight": torch.randn(classes, width), "bias": torch.randn(classes)}


def test_a_classifier_of_as_many_classes_is_loaded_without_a_word():
    head, state = nn.Linear(5, 4), stored(4)
    assert fill_class_head(head, state) == ""
    assert torch.equal(head.weight, state["weight"])
    assert torch.equal(head.bias, state["bias"])


@pytest.mark.parametrize(
    ("state", "said"), [(stored(174), "174 classes there, 4 here"), ({}, "no classifier there")], ids=["174", "none"]
)
def test_a_classifier_of_other_classes_or_none_leaves_ours_as_it_was_and_says_so(state, said):
    head = nn.Linear(5, 4)
    before = head.weight.clone()
    note = fill_class_head(head, state)
    assert said in note
    assert "starts anew" in note
    assert torch.equal(head.weight, before)


def test_a_classifier_of_other_features_is_refused():
    with pytest.raises(UserError, match="for 7 features, not 5"):
        fill_class_head(nn.Linear(5, 4), stored(4, width=7))
