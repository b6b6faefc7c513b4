"""Parts of the story that a whole run reaches only by accident."""

import dataclasses

import numpy as np
import pytest
import torch

from vtk_cli.errors import UserError
from vtk_cli.similarity.preparation import _require_sense

from .conftest import CLASSES, small_member


def test_two_networks_that_are_never_right_have_no_sat(make_rows):
    comparison = make_rows([small_member(0), small_member(1)]).comparison
    said = comparison.logits.argmax(axis=2)
    unsaid = torch.tensor([min(set(range(CLASSES)) - set(pair)) for pair in said.T.tolist()])
    with pytest.raises(UserError, match="net0 and net1 classify nothing correctly, so no SAT can be computed"):
        _require_sense(dataclasses.replace(comparison, labels=unsaid))


def test_a_network_that_the_labels_do_not_fit_is_named(make_rows):
    comparison = make_rows([small_member(0), small_member(1)]).comparison
    right = comparison.logits[0]
    _require_sense(dataclasses.replace(comparison, logits=np.stack([right, right])))
    with pytest.raises(UserError, match=r"net1 is right on 0\.0 % of the images, chance is 25\.0 %"):
        _require_sense(dataclasses.replace(comparison, logits=np.stack([right, -right])))
