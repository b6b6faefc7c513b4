from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.prune.hidden_networks import read_hidden_network


def save(path: Path, **changes: Tensor) -> Path:
    draw = torch.Generator().manual_seed(0)
    state = {
        "module.conv1.weight": torch.randn(4, 3, 3, 3, generator=draw),
        "module.conv1.scores": torch.randn(4, 3, 3, 3, generator=draw),
        "module.bn1.running_mean": torch.zeros(4),
        "module.fc.weight": torch.randn(1, 10, 1, 1, generator=draw),
        "module.fc.scores": torch.randn(1, 10, 1, 1, generator=draw),
    }
    torch.save({"epoch": 3, "arch": "cResNet18", "state_dict": {**state, **changes}, "best_acc1": 0.6}, path)
    return path


def slow_mask(scores: Tensor, keep: float) -> list[bool]:
    """As the published code prunes: the first int((1 - keep) n) of the sorted |scores|."""
    order = sorted(range(scores.numel()), key=lambda place: abs(scores.flatten()[place].item()))
    pruned = set(order[: int((1 - keep) * scores.numel())])
    return [place not in pruned for place in range(scores.numel())]


@pytest.mark.parametrize("keep", ["0.1", "0.3", "0.5", "0.9", "1"])
def test_each_layer_keeps_what_the_published_code_keeps(keep: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth")
    found = read_hidden_network(path, Fraction(keep))
    raw = torch.load(path, weights_only=True)["state_dict"]
    assert set(found.state) == {"conv1.weight", "bn1.running_mean", "fc.weight"}
    for name in ("conv1", "fc"):
        mask = slow_mask(raw[f"module.{name}.scores"], float(keep))
        assert found.masks[name].flatten().tolist() == mask
        assert torch.equal(found.state[f"{name}.weight"], raw[f"module.{name}.weight"] * found.masks[name])


def test_ten_weights_at_nine_tenths_are_all_kept_as_floats_have_it(tmp_path: Path) -> None:
    assert bool(read_hidden_network(save(tmp_path / "a.pth"), Fraction("0.9")).masks["fc"].all())


def test_scores_of_0_and_1_are_masks_already(tmp_path: Path) -> None:
    scores = (torch.arange(10) % 3 == 0).float().view(1, 10, 1, 1)
    found = read_hidden_network(save(tmp_path / "a.pth", **{"module.fc.scores": scores}), Fraction("0.1"))
    assert torch.equal(found.masks["fc"], scores.bool())


def test_checkpoints_without_usable_scores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="holds no scores"):
        read_hidden_network(path, Fraction(1, 2))
    with pytest.raises(UserError, match="scores of fc are not of its weight's shape"):
        read_hidden_network(save(path, **{"module.fc.scores": torch.zeros(3)}), Fraction(1, 2))
    with pytest.raises(UserError, match="scores of fc are not all numbers"):
        read_hidden_network(save(path, **{"module.fc.scores": torch.full((1, 10, 1, 1), torch.nan)}), Fraction(1, 2))
