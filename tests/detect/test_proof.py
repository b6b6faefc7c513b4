"""The proof and the bench run through, and judge as they say."""

from __future__ import annotations

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.data.detection.evaluation import evaluate_boxes
from vtk_cli.detect import bench, proof
from vtk_cli.detect.proof import NECK_FREE, PLUS, VIDT, Result

QUIET = Console(quiet=True)
CPU = torch.device("cpu")


def results(**ap: list[float]) -> dict[str, list[Result]]:
    names = {"free": NECK_FREE, "vidt": VIDT, "plus": PLUS}
    return {names[name]: [Result(value, value, None, 900, 1, 1.0) for value in each] for name, each in ap.items()}


def test_claims_hold_where_every_seed_and_the_mean_say_so():
    claims = proof._claims(results(free=[0.0, 0.0], vidt=[0.1, 0.1], plus=[0.2, 0.11]))
    assert [claim.holds for claim in claims] == [True, True, True]
    assert "+5.5 points" in claims[0].measured


@pytest.mark.parametrize(
    ("plus", "held"), [([0.14, 0.14], [False, True]), ([0.4, 0.09], [True, False]), ([0.1, 0.1], [False, False])]
)
def test_claims_fail_where_they_do(plus, held):
    claims = proof._claims(results(free=[0.0, 0.0], vidt=[0.1, 0.1], plus=plus))
    assert [claim.holds for claim in claims[:2]] == held


def test_all_arms_are_trained_alike():
    from pathlib import Path

    from vtk_cli.data.embedded import Embedded

    scenes = Embedded("digits-coco", Path("somewhere"), "0")
    arms = [proof.options_of(scenes, name, 1, 900).as_config() for name in (NECK_FREE, VIDT, PLUS)]
    assert len({tuple(sorted((key, str(value)) for key, value in arm.items() if key != "model")) for arm in arms}) == 1
    assert (arms[0]["steps"], arms[0]["lr"], arms[0]["batch-size"], arms[0]["size"]) == (900, 1e-3, 16, 128)


@pytest.mark.slow
def test_the_smallest_proof_comes_from_its_cache_the_second_time(tmp_path, monkeypatch):
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    arguments = {"smallest": True, "plots": tmp_path / "plots", "device": CPU, "console": QUIET}
    first = proof.prove((0, 1), **arguments)
    assert len(first.claims) == 3
    assert all(picture.stat().st_size > 1000 for picture in first.pictures)
    monkeypatch.setattr(proof, "_train", None)
    assert proof.prove((0, 1), **arguments).as_json() == first.as_json()


@pytest.mark.slow
def test_the_smallest_bench_has_a_row_for_each_aim(tmp_path, monkeypatch):
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    rows = bench.measure(smallest=True, device=CPU, console=QUIET)
    assert [row.target for row in rows] == [bench.STEP_TARGET, None, None]
    assert all(row.ours > 0 and row.theirs > 0 for row in rows)
    ours, theirs = rows[2].note.split(";")[0].removeprefix("AP ").split(" and ")
    assert ours == theirs


def test_the_synthetic_dataset_has_the_measure_it_is_named_for():
    dataset, found = bench.synthetic(5, detections=20)
    assert [len(one) for one in found] == [20] * 5
    assert 0 < (evaluate_boxes(dataset, found).numbers["AP"] or 0) < 1
