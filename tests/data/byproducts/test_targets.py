from __future__ import annotations

import pytest
import torch

from vtk_cli.data.byproducts.targets import PointTargets


def test_a_subset_keeps_the_order_asked_for() -> None:
    points = torch.arange(12, dtype=torch.float32).reshape(3, 2, 2)
    targets = PointTargets(points, torch.tensor([[True, False], [False, True], [True, True]]), torch.zeros(3, 2, 4))
    kept = targets.subset([2, 0])
    assert len(kept) == 2
    assert torch.equal(kept.points, points[[2, 0]])
    assert kept.present.tolist() == [[True, True], [True, False]]
    assert kept.boxes is not None
    assert kept.boxes.shape == (2, 2, 4)


@pytest.mark.parametrize(
    ("present", "boxes"), [(torch.zeros(3, 1).bool(), None), (torch.zeros(3, 2).bool(), torch.zeros(3, 4))]
)
def test_tensors_that_do_not_fit_are_refused(present: torch.Tensor, boxes: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        PointTargets(torch.zeros(3, 2, 2), present, boxes)
