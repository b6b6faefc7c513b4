"""Precision, recall, density and coverage against double loops and limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vtk_cli.prune.metrics import neighbours
from vtk_cli.prune.metrics.neighbours import fidelity


def clouds(seed: int = 0, real: int = 40, fake: int = 30, shift: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(real, 3, generator=generator), torch.randn(fake, 3, generator=generator) + shift


def reference(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    """The definitions, ball by ball."""

    def radius(points: Tensor, index: int) -> float:
        return sorted(float((points[index] - other).norm()) for other in points)[k]  # [0] is the point itself

    def holds(points: Tensor, index: int, other: Tensor) -> bool:
        return float((points[index] - other).norm()) <= radius(points, index)

    precision = sum(any(holds(real, i, y) for i in range(len(real))) for y in fake) / len(fake)
    recall = sum(any(holds(fake, j, x) for j in range(len(fake))) for x in real) / len(real)
    density = sum(holds(real, i, y) for i in range(len(real)) for y in fake) / (k * len(fake))
    coverage = sum(any(holds(real, i, y) for y in fake) for i in range(len(real))) / len(real)
    return precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
def test_it_equals_the_definitions(k: int) -> None:
    real, fake = clouds()
    found = fidelity(real.double(), fake.double(), k)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(reference(real, fake, k))
    assert 0 < found.precision < 1


def test_identical_sets_are_wholly_real_and_wholly_covered() -> None:
    real, _ = clouds()
    found = fidelity(real, real.clone())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_copies_of_one_point_lie_in_their_own_balls() -> None:
    points = torch.full((9, 5), 123.456)
    found = fidelity(points, points)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_sets_far_apart_share_nothing() -> None:
    real, fake = clouds(shift=1e3)
    found = fidelity(real, fake)
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_precision_and_recall_change_places_with_the_sets() -> None:
    real, fake = clouds()
    one, other = fidelity(real, fake), fidelity(fake, real)
    assert (one.precision, one.recall) == (other.recall, other.precision)


def test_coverage_stays_below_one_where_density_does_not() -> None:
    real, _ = clouds()
    central = real[(real - real.mean(0)).norm(dim=1).argmin()]
    fake = central + 1e-3 * torch.randn(50, 3, generator=torch.Generator().manual_seed(3))
    found = fidelity(real, fake)
    assert found.coverage < 1 < found.density


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = clouds()
    whole = fidelity(real, fake)
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    assert fidelity(real, fake) == whole


def test_a_set_without_a_kth_neighbour_is_refused() -> None:
    real, _ = clouds()
    with pytest.raises(ValueError, match="at least 4"):
        fidelity(real, real[:3], k=3)
