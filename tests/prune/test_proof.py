"""`vtk proof prune`: its machinery, and from one seed its claims."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vtk_cli.app import main
from vtk_cli.console import Console
from vtk_cli.prune.bench import measure
from vtk_cli.prune.preparation import open_lab
from vtk_cli.prune.proof import POINTS, claims_of, options_of, prove, searched


def test_the_smallest_proof_has_every_row_claim_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prune_cache: Path
) -> None:
    monkeypatch.setenv("VTK_CACHE", str(prune_cache))
    proof = prove((0, 1), smallest=True, plots=tmp_path, device=torch.device("cpu"), console=Console(quiet=True))
    assert [row[0] for row in proof.tables[0].rows] == [
        *("random mask, 0.1", "random mask, 0.3", "random mask, 0.5", "untrained dense", "trained dense"),
        *("trained, random mask, 0.1", "ticket, layer, 0.1", "ticket, layer, 0.3", "ticket, layer, 0.5"),
        "ticket, global, 0.1",
    ]
    assert len(proof.claims) == 4
    assert proof.claims[3].holds, "no weight changes, however few the steps"
    assert all(path.stat().st_size for path in proof.pictures)
    assert json.loads(json.dumps(proof.as_json(), allow_nan=False))
    assert "Not claimed" in proof.as_markdown()


@pytest.mark.slow
def test_the_claims_hold_from_one_seed(monkeypatch: pytest.MonkeyPatch, prune_cache: Path) -> None:
    monkeypatch.setenv("VTK_CACHE", str(prune_cache))
    quiet = Console(quiet=True)
    lab = open_lab(options_of(smallest=False), torch.device("cpu"), quiet)
    needed = [POINTS[0], POINTS[4], POINTS[-1]]
    assert [point[0] for point in needed] == ["random", "dense", "edge-popup"]
    claims = claims_of(searched(lab, (1,), needed, quiet))
    assert [claim.holds for claim in claims] == [True] * 4, claims


def test_the_smallest_bench_selects_the_very_masks_of_a_sort(
    monkeypatch: pytest.MonkeyPatch, prune_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VTK_CACHE", str(prune_cache))
    rows = measure(smallest=True, device=torch.device("cpu"), console=Console(quiet=True))
    assert len(rows) == 3
    assert rows[0].note == "the masks are equal"
    assert rows[1].target == 0.8
    assert main(["bench", "prune", "--smallest", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 3
