"""Which networks take part, from the words a user types."""

import pytest

from vtk_cli.errors import UserError
from vtk_cli.similarity.members import parse_members


def test_a_seed_after_an_at_sign_is_that_networks_own():
    members = parse_members(["resnet18@4294967295", "resnet18"])
    assert [(name.label, seed) for name, seed in members] == [("resnet18@4294967295", 2**32 - 1), ("resnet18", None)]


@pytest.mark.parametrize("seed", [2**32, 10**20])
def test_a_seed_out_of_range_is_refused_before_any_training(seed):
    with pytest.raises(UserError, match=f"resnet18@{seed}: {seed} is no seed; give NAME@SEED with a seed of at most"):
        parse_members([f"resnet18@{seed}", "vit_b"])


def test_digits_of_other_scripts_are_no_seed():
    with pytest.raises(UserError, match="unknown network"):
        parse_members(["resnet18@\u0661", "vit_b"])
