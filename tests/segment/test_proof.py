from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment import proof
from vtk_cli.segment.proof import ARMS, FULL_ONLY, POINTS, REFINED_POINTS, Result, prove

QUIET = Console(quiet=True)


def result(full: float, refined: float, rough_iou: float, refined_iou: float) -> Result:
    ap = {"teacher": 0.0, FULL_ONLY: full, POINTS: full, REFINED_POINTS: refined}
    return Result(ap, ap, rough_iou, refined_iou, 0.0, 0.0, 10, 1, (4, 36), (1.0, 2.0))


@pytest.mark.parametrize(
    ("results", "holds"),
    [
        ([result(0.1, 0.15, 0.6, 0.7), result(0.1, 0.11, 0.6, 0.6)], [True, True, True]),
        ([result(0.1, 0.2, 0.6, 0.7), result(0.1, 0.1, 0.6, 0.59)], [False, True, False]),
        ([result(0.1, 0.11, 0.6, 0.7), result(0.1, 0.12, 0.6, 0.7)], [True, False, True]),
    ],
)
def test_claims_ask_for_every_seed_and_for_two_points_on_average(results: list[Result], holds: list[bool]) -> None:
    assert [claim.holds for claim in proof._claims(results)] == holds


@pytest.mark.slow
def test_the_smallest_proof_trains_every_arm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    found = prove((0, 1), smallest=True, plots=tmp_path / "plots", device=torch.device("cpu"), console=QUIET)
    (only,) = found.data["results"]
    assert set(only["ap"]) == {"teacher", *ARMS}
    assert only["images"] == (6, 18)
    assert 0 <= only["rough"] <= 1
    assert 0 <= only["unresolved"] <= only["clicks"]
    assert all(picture.is_file() for picture in found.pictures)
    monkeypatch.setattr(proof, "_trained", None)
    again = prove((0,), smallest=True, plots=tmp_path / "plots", device=torch.device("cpu"), console=QUIET)
    assert again.data == found.data
